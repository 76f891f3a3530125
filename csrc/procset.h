// procset: wait for, read from and signal a set of processes, without polling.
//
// A set is a table of members. A member is one process (a rank) together with
// the descriptor on which it reports. One blocking call, procset_wait(),
// sleeps until a member ends, a report can be read, somebody calls
// procset_wake(), or the deadline passes.
//
// Errors. Every function that can fail returns `int`: zero or more on success
// and a negative error value otherwise. An error value names both the system
// call that failed and the system's own code for the failure; take it apart
// with procset_error_call(), procset_error_code() and procset_error_kind().
// Return parameters (`ret_...`) are untouched on failure.
//
// Threads. One thread at a time may be inside procset_wait(). All other
// functions except procset_close() and procset_abandon() may be called from
// any thread at any time.
//
// Process identity. A member is a pid together with a handle of the operating
// system (a pidfd on Linux). Signals go through the handle, so a recycled pid
// is never hit. Where there is no handle, as on macOS and FreeBSD, see
// procset_signal().

#ifndef PROCSET_H
#define PROCSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A descriptor on POSIX, a HANDLE on Windows.
typedef intptr_t procset_handle;
#define PROCSET_HANDLE_INVALID ((procset_handle) (-1))

// ------------------------------------------------------------------ errors

// What portable code needs to tell apart. OTHER is everything else.
#define PROCSET_KIND_MAP(XX)                                                  \
    XX(OTHER, "other")                                                        \
    XX(INVALID, "invalid argument")                                           \
    XX(INTERRUPTED, "interrupted by a signal")                                \
    XX(AGAIN, "nothing to read at the moment")                                \
    XX(NO_CHILD, "not a child, or reaped elsewhere")                          \
    XX(GONE, "no such process")                                               \
    XX(LIMIT, "a limit on descriptors, threads or memory was hit")            \
    XX(REFUSED, "not permitted, or not offered by this kernel")

typedef enum {
#define XX(name, text) PROCSET_KIND_##name,
    PROCSET_KIND_MAP(XX)
#undef XX
} procset_kind;

// `error` is a negative return value of any procset function.
procset_kind
procset_error_kind(int error);

// errno on POSIX, GetLastError() on Windows.
int
procset_error_code(int error);

// The name of the failed system call; never NULL.
const char *
procset_error_call(int error);

// ----------------------------------------------------------------- handles

// Closes a handle; accepts PROCSET_HANDLE_INVALID; returns it.
procset_handle
procset_handle_close(procset_handle handle);

// Moves a handle to a number that is none of the standard streams', where
// those are numbers of handles at all.
int
procset_handle_move(procset_handle *handle);

// Opens the handle of a process. PROCSET_KIND_GONE when there is none with
// this pid, PROCSET_KIND_REFUSED where the system has no handles. Linux only.
int
procset_handle_open(int64_t pid, procset_handle *ret_handle);

// Sends a signal to the process of a handle. PROCSET_KIND_GONE when it has
// been collected. Linux only.
int
procset_handle_signal(procset_handle handle, int signal);

// Opens a new, empty file in memory that can be sealed. PROCSET_KIND_REFUSED
// where the system has none (Linux 3.17, FreeBSD 13 have).
int
procset_memory_open(const char *name, procset_handle *ret_handle);

// Opens a pipe for reports: the launcher reads, by procset_read(), and a rank
// that has inherited the write end writes and may block. Neither end is
// inherited unless procset_launch_inherit() says so, and neither has the
// number of a standard stream.
int
procset_report_open(procset_handle *ret_read, procset_handle *ret_write);

// ---------------------------------------------------------------- features

// The system offers a pollable handle for a process, can wait for it and can
// signal through it (Linux 5.4: pidfd_open, waitid(P_PIDFD),
// pidfd_send_signal; a seccomp filter may still refuse them).
#define PROCSET_FEATURE_PIDFD 1u
// The system's wait takes nanoseconds (Linux 5.11: epoll_pwait2; kqueue).
// Without it time-outs are as precise, for one more system call per wait.
#define PROCSET_FEATURE_PWAIT2 2u
// A child can live in the memory of its launcher until it becomes another
// program (Linux: clone(CLONE_VM | CLONE_VFORK); emulators and some sandboxes
// make a plain fork of it).
#define PROCSET_FEATURE_VFORK 4u
// Making a child gives its handle in the same step (Linux 5.2: CLONE_PIDFD).
#define PROCSET_FEATURE_CLONE_PIDFD 8u
// All descriptors can be kept from a new program in one call (Linux 5.11:
// close_range with CLOSE_RANGE_CLOEXEC; FreeBSD 13.1). posix_spawn() of macOS
// needs no such call.
#define PROCSET_FEATURE_CLOSE_RANGE 16u
// The descendants of a process can be found (Linux: /proc is mounted).
#define PROCSET_FEATURE_TREE 32u
// A rank can be guarded by a thread of its own (POSIX).
#define PROCSET_FEATURE_GUARD 64u
// The system's wait can be told to wait for the end of a process by its pid
// (kqueue: EVFILT_PROC).
#define PROCSET_FEATURE_PID_EVENTS 128u

// Tries every call that a feature needs and returns those that work. Makes a
// child that ends at once. Costs less than a millisecond: call it once and
// keep the answer.
unsigned
procset_probe(void);

// ------------------------------------------------------------------ launch
//
// Starts any number of processes from one call. All of them run the same
// program, in the environment that this process has when the launch is opened,
// and each has its own arguments and its own inherited descriptors.
//
// Between open and start everything is a copy; only start makes processes.
// A launch is used by one thread at a time.

typedef struct procset_launch procset_launch;

// Opens a launch of the program at `path`, which is not searched for. Reads
// the environment: no other thread may change it meanwhile.
int
procset_launch_open(unsigned features, const char *path,
                    procset_launch **ret_launch);

// Accepts NULL; returns NULL. Processes that were started go on.
procset_launch *
procset_launch_close(procset_launch *launch);

// The programs start with this signal blocked; all others are not.
int
procset_launch_block(procset_launch *launch, int signal);

// Adds a process; the calls that follow are about it.
int
procset_launch_add(procset_launch *launch);

// Adds to its arguments; the first one is the name of the program.
int
procset_launch_argument(procset_launch *launch, const char *argument);

// Lets it have a descriptor, under the same number. It inherits no others but
// the standard ones. Borrowed: keep it open until the start.
int
procset_launch_inherit(procset_launch *launch, procset_handle handle);

// Has its standard error be the file at this path, opened for reading and
// writing, from this offset on. Only where a launch ends in execve().
int
procset_launch_errors(procset_launch *launch, const char *path,
                      int64_t offset);

// Gives it a variable of its own, as NAME=VALUE, in place of one of that name.
// One name in a launch, which then all of its processes must be given.
int
procset_launch_variable(procset_launch *launch, const char *variable);

// Adds the variable "NAME=VALUE" to the environment of all processes, or sets
// the one with this name.
int
procset_launch_environment(procset_launch *launch, const char *variable);

// Has all processes start in this job, which is borrowed until the start.
// PROCSET_HANDLE_INVALID stands for none.
int
procset_launch_job(procset_launch *launch, procset_handle job);

// Starts all processes, or none: when one cannot be started, those before it
// are killed and reaped (one that does not end within two seconds is stuck in
// the kernel, and is given up). Once only. Signals that this process ignores
// are reset too, except for those that shells ignore on behalf of a job:
// SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGTTIN and SIGTTOU. Returns when each has
// become the program, so the error is that of its execve(), too (on macOS that
// of posix_spawn(), which is both). The processes
// do not depend on the thread that started them.
//
// On Windows no descriptor but the standard ones has a number of its own that
// a program could know, so a handle keeps its value. Each process leads a
// process group, which is deaf to Ctrl-C, and no other signal can be blocked.
// What keeps a program from being loaded, such as a missing library, is told
// by its exit code.
int
procset_launch_start(procset_launch *launch);

// Takes over the process with this index: its pid, and its handle (a pidfd on
// Linux) or PROCSET_HANDLE_INVALID. The caller closes the handle.
int
procset_launch_take(procset_launch *launch, size_t index, int64_t *ret_pid,
                    procset_handle *ret_handle);

// -------------------------------------------------------------------- tree
//
// The descendants of ranks: what they have started, and what that has started.
//
// They are found in two ways. Each rank carries a *mark*, "JOB.RANK", where
// JOB is a text that no other job of this host has: in the environment that
// it was started with, or in the name of a file that it has mapped. Programs
// and forks inherit it, also those whose parents are gone. And the parents of
// a process lead to the rank for as long as they live, whatever it has done to
// its environment; so does a *look* at the right time.
//
// Found is what this process may read under /proc, which must be mounted
// there. A process is signalled only after its handle (or, without handles,
// its start time) has been seen to be that of the descendant.

typedef struct procset_tree procset_tree;

// Opens a tree, which needs PROCSET_FEATURE_TREE. `job` is copied.
int
procset_tree_open(unsigned features, const char *job, procset_tree **ret_tree);

// Accepts NULL; returns NULL. Ends nothing.
procset_tree *
procset_tree_close(procset_tree *tree);

// Gives this process the mark of a rank, which its forks inherit. Programs
// that it starts inherit the environment, which is the caller's to change.
int
procset_tree_mark(const char *job, size_t rank);

// Remembers the descendants that these living processes have now, on behalf of
// the ranks.
int
procset_tree_look(procset_tree *tree, const int64_t *pids, const size_t *ranks,
                  size_t count);

// Kills the descendants of these ranks, those that they make meanwhile
// included, and waits until they are gone. Fails with
// PROCSET_KIND_INTERRUPTED when a signal handler ran; call again. Sets the
// number of those that were not gone at the deadline, or could not be
// signalled, and the pid of one of them.
int
procset_tree_end(procset_tree *tree, const size_t *ranks, size_t count,
                 int64_t deadline, size_t *ret_left, int64_t *ret_pid);

// ------------------------------------------------------------------- guard
//
// A thread in a rank that ends the rank, and its descendants, when the
// launcher is gone: however that died, whatever the rank is doing, and with
// no need of its interpreter. It sleeps until then.

// What a rank takes on the board, in bytes.
#define PROCSET_BOARD_ENTRY_SIZE ((size_t) 4)

typedef struct {
    unsigned features;
    // The launcher is gone when this end of a pipe is hung up, which it also
    // is when the launcher becomes another program.
    procset_handle pipe;
    // The launcher is gone when this becomes readable, whoever holds the other
    // end of the pipe; or PROCSET_HANDLE_INVALID.
    procset_handle launcher;
    const char *job;
    size_t rank;
    // A file that the ranks of the job share, of zeros at first, where their
    // guards say who ends what; or PROCSET_HANDLE_INVALID. With it a guard
    // also ends what ranks have left that died before the launcher did.
    procset_handle board;
    size_t world_size;
} procset_guard;

// Starts the guard of this process, once. It does not return in a process
// whose launcher is gone already. When it returns, the guard has its
// own copies of the descriptors, which nobody can close: `ret_private` tells
// whether. Where the system has none for a thread alone (Linux 5.9,
// close_range with CLOSE_RANGE_UNSHARE) they must stay open. Where a sandbox
// refuses to make threads, the process is tied to its parent instead.
int
procset_guard_start(const procset_guard *guard, bool *ret_private);

// Says that this rank ends well: what it has started may stay.
void
procset_guard_ended_well(void);

// Takes over the job of the process with this index and of all that it starts,
// where there are jobs, or else PROCSET_HANDLE_INVALID. The caller closes it.
int
procset_launch_take_job(procset_launch *launch, size_t index,
                        procset_handle *ret_job);

// --------------------------------------------------------------------- job
//
// A job is a set of processes, and of all that they start. There are none but
// on Windows: elsewhere PROCSET_HANDLE_INVALID stands for one.

// Opens an empty job. Its processes are ended when the last handle of it is
// closed, which the end of this process does too.
int
procset_job_open(procset_handle *ret_job);

// Ends all processes of a job by force.
int
procset_job_end(procset_handle job);

// Ends all processes of a job by force, those that are started meanwhile
// included, and waits until they are gone. Sets the number of those that were
// not gone at the deadline and, if there are any, the pid of one of them.
int
procset_job_clear(procset_handle job, int64_t deadline, size_t *ret_left,
                  int64_t *ret_pid);

// --------------------------------------------------------------------- set

typedef struct procset procset;

// Opens an empty set. `features` is what procset_probe() returned, or less to
// force a fall-back.
int
procset_open(unsigned features, procset **ret_set);

// Closes the set and frees it; accepts NULL; returns NULL. Members are neither
// signalled nor waited for.
procset *
procset_close(procset *set);

// For a child that was forked with the set open: closes the set's descriptors
// and frees nothing that another thread may have held locked at the time of
// the fork. The parent's set is not affected.
procset *
procset_abandon(procset *set);

typedef struct {
    int64_t pid;
    // PROCSET_HANDLE_INVALID for a child of this process, which the set reaps.
    // Otherwise the process belongs to another parent: it has ended when this
    // handle becomes readable or is hung up, and its status stays unknown.
    // Duplicated: its owner may close it any time.
    //
    // On Windows nobody is reaped, and a HANDLE of the process may be given
    // here for all: it tells the status too, and it alone makes sure that no
    // other process has the pid by now.
    procset_handle sentinel;
    // The read end of the member's report pipe, or PROCSET_HANDLE_INVALID.
    // Borrowed: keep it open until procset_forget_report() or procset_close().
    // On Windows a named pipe that was opened for overlapped reads, in bytes
    // or messages.
    procset_handle report;
    // The job of the process and of all that it starts, or
    // PROCSET_HANDLE_INVALID. Duplicated.
    procset_handle job;
    // The process is known to have ended and to have been reaped: its pid may
    // be somebody else's by now and is not looked at.
    bool over;
} procset_member;

// Adds a member; its index is the number of members added before. A child that
// has ended already, or was reaped by somebody else, is accepted: the next
// wait tells.
//
// Where the system gives no handle for the process (no such feature, refused,
// or out of descriptors) and cannot wait for its pid, and it is a child, a
// small thread of its own blocks in waitid() for it.
int
procset_add(procset *set, const procset_member *member, size_t *ret_index);

typedef enum {
    PROCSET_RUNNING,
    // `code` is the exit code; on Windows its 32 bits, as int.
    PROCSET_EXITED,
    // `code` is the signal number; on Windows SIGTERM (15) for what was ended
    // by procset_signal(), procset_job_end() or multiprocessing, all of which
    // leave the exit code 0x10000.
    PROCSET_SIGNALED,
    PROCSET_UNKNOWN, // ended, but somebody else has or had the status
} procset_state;

typedef struct {
    procset_state state;
    int code;
    bool core_dumped;
    // Resource usage of the process and its waited-for children; zero where
    // the status is unknown. Largest resident set in bytes. On Windows of the
    // process alone.
    int64_t user_ns;
    int64_t system_ns;
    int64_t max_rss;
} procset_status;

// Looks whether a child of this process has ended, without a set, and leaves
// it to be reaped: fills in all but the resource usage. PROCSET_RUNNING when
// it has not ended; with `block` it waits until then, and fails with
// PROCSET_KIND_INTERRUPTED when a signal handler ran. POSIX only.
int
procset_peek(int64_t pid, bool block, procset_status *ret_status);

// What is known of a member now. Does not ask the system.
int
procset_get_status(procset *set, size_t index, procset_status *ret_status);

typedef enum {
    PROCSET_EVENT_ENDED,    // once for each member
    PROCSET_EVENT_READABLE, // again and again until it is read or forgotten
    PROCSET_EVENT_WOKEN,    // procset_wake() was called; may come unasked
} procset_event_type;

typedef struct {
    procset_event_type type;
    size_t index; // zero for PROCSET_EVENT_WOKEN
    // For PROCSET_EVENT_ENDED, as in procset_status.
    procset_state state;
    int code;
} procset_event;

// Deadlines are absolute times of the system's monotonic clock, in
// nanoseconds: CLOCK_MONOTONIC, on macOS CLOCK_UPTIME_RAW, on Windows
// QueryPerformanceCounter(). It is the clock that Python's
// time.perf_counter_ns() reads.
#define PROCSET_NEVER INT64_MAX

// Blocks until there is at least one event or `deadline` has passed; a
// deadline in the past does not block. Ended children are reaped. Events of
// members come in the order in which the kernel saw them. Fills at most
// `capacity` events; what does not fit comes with the next call.
// Fails with PROCSET_KIND_INTERRUPTED when a signal handler ran.
//
// On Windows, where nothing interrupts a wait, ends come in order among those
// of one call, and a deadline is kept to a tick of the system's timer.
int
procset_wait(procset *set, int64_t deadline, procset_event *events,
             size_t capacity, size_t *ret_count);

// Makes a procset_wait() in progress, or else the next one, return.
int
procset_wake(procset *set);

// Writing a byte to this non-blocking handle is the same as procset_wake();
// it may be done in a signal handler. Belongs to the set.
procset_handle
procset_wake_handle(const procset *set);

// Readable while procset_wait() would return at once. Belongs to the set. On
// Windows a completion port, which is signalled then, and now and then for
// nothing; it can be waited for but must not be taken from.
procset_handle
procset_wait_handle(const procset *set);

// Signals a member that is still running. PROCSET_KIND_GONE when it has ended.
//
// Where the member has no handle, the pid is signalled after checking that it
// is still an unreaped child (or, for a child of another process, that its
// sentinel is silent). Only somebody else's wait between that check and the
// signal could let the signal hit a recycled pid.
//
// Windows knows no signals. There 0 asks whether the member is still running,
// SIGTERM (15) ends it by force, together with all that is in its job, and
// SIGBREAK (21) asks a member that has a job to stop, by CTRL_BREAK; that
// fails when it does not share the console of this process.
int
procset_signal(procset *set, size_t index, int signal);

// Reads from a member's report pipe without ever blocking. Zero bytes mean
// that the pipe has no writer left; PROCSET_KIND_AGAIN that it is empty.
int
procset_read(procset *set, size_t index, void *buffer, size_t size,
             size_t *ret_count);

// Stops watching a member's report pipe, which can then be closed.
int
procset_forget_report(procset *set, size_t index);

#endif
