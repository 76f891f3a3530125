// The board of a job: a file that its ranks share, with an entry for each that
// says who ends what this rank has started when the launcher is gone.
//
// Guards act at the same time, and one that ends what a rank has started also
// ends the guard of that rank. So a claim is final: whoever holds it brings it
// to its end, and one that comes too late claims nothing more.

#ifndef PROCSET_BOARD_H
#define PROCSET_BOARD_H

#include "procset.h"

// Zero: nobody. Otherwise the number of the rank, plus one, whose guard does.
typedef volatile uint32_t procset__board_entry;

// Nobody is to do it.
#define PROCSET__BOARD_ENDED_WELL UINT32_MAX

_Static_assert(sizeof(procset__board_entry) == PROCSET_BOARD_ENTRY_SIZE,
               "who makes the file has to know its size");

// Writes an entry in which nothing stands yet. Fails when something does.
static inline bool
procset__board_write(procset__board_entry *board, size_t rank, uint32_t what)
{
    uint32_t nobody = 0;

    return __atomic_compare_exchange_n(&board[rank], &nobody, what, false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

// Claims the entry of a rank for the guard of the rank `by`. Fails when
// another guard has it, or when that rank ended well.
static inline bool
procset__board_claim(procset__board_entry *board, size_t rank, size_t by)
{
    return procset__board_write(board, rank, (uint32_t) by + 1);
}

// Whether the guard of the rank `by` has the entry of a rank.
static inline bool
procset__board_has(const procset__board_entry *board, size_t rank, size_t by)
{
    return __atomic_load_n(&board[rank], __ATOMIC_SEQ_CST)
           == (uint32_t) by + 1;
}

// Says that a rank ended well, unless a guard is about to end it.
static inline void
procset__board_end_well(procset__board_entry *board, size_t rank)
{
    (void) procset__board_write(board, rank, PROCSET__BOARD_ENDED_WELL);
}

#endif
