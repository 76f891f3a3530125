// Threads of ours inside of somebody else's process.

#ifndef PROCSET_THREAD_H
#define PROCSET_THREAD_H

// Starts a detached thread to which no signal is delivered.
int
procset__thread_start(void *(*function)(void *), void *argument);

#endif
