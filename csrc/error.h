// Error values: one negative int that carries the failed call and its code.

#ifndef PROCSET_ERROR_H
#define PROCSET_ERROR_H

#include "procset.h"

// Every system call that the library makes and that can fail.
#define PROCSET__CALL_MAP(XX)                                                 \
    XX(NONE, "none")                                                          \
    XX(ADD, "procset_add")                                                    \
    XX(CALLOC, "calloc")                                                      \
    XX(CLONE, "clone")                                                        \
    XX(CLOSE_RANGE, "close_range")                                            \
    XX(CREATE_EVENT, "CreateEventW")                                          \
    XX(CREATE_FILE, "CreateFileW")                                            \
    XX(CREATE_IO_COMPLETION_PORT, "CreateIoCompletionPort")                   \
    XX(CREATE_JOB_OBJECT, "CreateJobObjectW")                                 \
    XX(CREATE_NAMED_PIPE, "CreateNamedPipeW")                                 \
    XX(CREATE_PROCESS, "CreateProcessW")                                      \
    XX(DUPLICATE_HANDLE, "DuplicateHandle")                                   \
    XX(DUP2, "dup2")                                                          \
    XX(EPOLL_CREATE1, "epoll_create1")                                        \
    XX(EPOLL_CTL, "epoll_ctl")                                                \
    XX(EPOLL_PWAIT2, "epoll_pwait2")                                          \
    XX(EPOLL_WAIT, "epoll_wait")                                              \
    XX(EXECVE, "execve")                                                      \
    XX(FCNTL, "fcntl")                                                        \
    XX(FORK, "fork")                                                          \
    XX(GENERATE_CONSOLE_CTRL_EVENT, "GenerateConsoleCtrlEvent")               \
    XX(GET_ENVIRONMENT_STRINGS, "GetEnvironmentStringsW")                     \
    XX(GET_EXIT_CODE_PROCESS, "GetExitCodeProcess")                           \
    XX(GET_QUEUED_COMPLETION_STATUS, "GetQueuedCompletionStatusEx")           \
    XX(GETDENTS64, "getdents64")                                              \
    XX(GUARD, "procset_guard_start")                                          \
    XX(HANDLE, "process handle")                                              \
    XX(INDEX, "index")                                                        \
    XX(JOB, "procset_job_end")                                                \
    XX(KEVENT, "kevent")                                                      \
    XX(KILL, "kill")                                                          \
    XX(KQUEUE, "kqueue")                                                      \
    XX(LAUNCH, "procset_launch")                                              \
    XX(LSEEK, "lseek")                                                        \
    XX(MEMFD_CREATE, "memfd_create")                                          \
    XX(MMAP, "mmap")                                                          \
    XX(MPROTECT, "mprotect")                                                  \
    XX(OPEN_PROCESS, "OpenProcess")                                           \
    XX(PEEK_NAMED_PIPE, "PeekNamedPipe")                                      \
    XX(OPEN, "open")                                                          \
    XX(PIDFD_OPEN, "pidfd_open")                                              \
    XX(PIDFD_SEND_SIGNAL, "pidfd_send_signal")                                \
    XX(PIPE, "pipe")                                                          \
    XX(PIPE2, "pipe2")                                                        \
    XX(POLL, "poll")                                                          \
    XX(POSIX_SPAWN, "posix_spawn")                                            \
    XX(PPOLL, "ppoll")                                                        \
    XX(PRCTL, "prctl")                                                        \
    XX(PTHREAD_CREATE, "pthread_create")                                      \
    XX(PTHREAD_MUTEX_INIT, "pthread_mutex_init")                              \
    XX(PTHREAD_SIGMASK, "pthread_sigmask")                                    \
    XX(QUERY_INFORMATION_JOB_OBJECT, "QueryInformationJobObject")             \
    XX(READ, "read")                                                          \
    XX(READ_FILE, "ReadFile")                                                 \
    XX(REGISTER_WAIT, "RegisterWaitForSingleObject")                          \
    XX(RT_SIGPROCMASK, "rt_sigprocmask")                                      \
    XX(SET_HANDLE_INFORMATION, "SetHandleInformation")                        \
    XX(SET_INFORMATION_JOB_OBJECT, "SetInformationJobObject")                 \
    XX(SET_NAMED_PIPE_HANDLE_STATE, "SetNamedPipeHandleState")                \
    XX(TERMINATE_JOB_OBJECT, "TerminateJobObject")                            \
    XX(TERMINATE_PROCESS, "TerminateProcess")                                 \
    XX(UNREGISTER_WAIT, "UnregisterWaitEx")                                   \
    XX(UPDATE_ATTRIBUTE, "UpdateProcThreadAttribute")                         \
    XX(TREE, "procset_tree")                                                  \
    XX(WAIT4, "wait4")                                                        \
    XX(WAITID, "waitid")                                                      \
    XX(WAIT_FOR_SINGLE_OBJECT, "WaitForSingleObject")                         \
    XX(WATCH, "watch")                                                        \
    XX(WRITE, "write")                                                        \
    XX(WRITE_FILE, "WriteFile")

typedef enum {
#define XX(name, text) PROCSET__CALL_##name,
    PROCSET__CALL_MAP(XX)
#undef XX
} procset__call;

// The error value for `call` having failed with the system's `code`.
int
procset__error(procset__call call, int code);

// The same with the code taken from errno or GetLastError().
int
procset__error_last(procset__call call);

int
procset__error_invalid(procset__call call);

int
procset__error_no_memory(void);

// "This process has ended", from a call that asked the system nothing.
int
procset__error_gone(procset__call call);

// "This system has no such thing".
int
procset__error_missing(procset__call call);

// "There is nothing to read".
int
procset__error_again(procset__call call);

// Translates the system's code; the per-system half of procset_error_kind().
procset_kind
procset__kind_of_code(int code);

#endif
