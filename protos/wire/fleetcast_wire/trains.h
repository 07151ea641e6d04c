/* A run: source symbols of one window that come one after the other and are opened into their places. */

#ifndef FLEETCAST_TRAINS_H
#define FLEETCAST_TRAINS_H

#include <stddef.h>
#include <stdint.h>

enum { SYMBOL_AT = 12 };

struct cipher;

struct run {
    const struct cipher *cipher;
    const uint8_t *slots;
    size_t slot_count, stride;
    uint8_t *memory; /* the places, symbol by symbol */
    uint8_t *held;   /* of each symbol, 1 if it has its place already */
    size_t symbol_count;
    uint8_t beginning[SYMBOL_AT]; /* of every header, all before the symbol's number */
    /* What was opened, since somebody set this to 0; the counters have the order of bytes of the network. */
    int64_t opened;
    size_t stop; /* the number after that of the last symbol */
    uint64_t first_counter, last_counter;
};

int64_t fleetcast_open_run(struct run *run, const int64_t *numbers, size_t count);

#endif
