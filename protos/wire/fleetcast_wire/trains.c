/* Seals and opens whole trains of datagrams in one call each: AES-256-GCM by Intel's multi-buffer library, which
 * prepares a datagram in a tenth of the time that general-purpose libraries take for it. ciphers.py says what is called
 * how, and does the same without this file. WIRE.md, section 5, is the rule for both. */

#include "trains.h"

#include <intel-ipsec-mb.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_BYTES = 24, COUNTER_AT = 16, SEAL_BYTES = 16, NONCE_BYTES = 12, SALT_BYTES = 4 };

struct cipher {
    alignas(64) struct gcm_key_data key;
    IMB_MGR *manager;
    uint8_t initialization_vector[NONCE_BYTES];
};

/* Forgets and frees; NULL is nothing. */
void fleetcast_cipher_free(struct cipher *cipher)
{
    if (cipher == NULL)
        return;
    if (cipher->manager != NULL)
        free_mb_mgr(cipher->manager);
    imb_clear_mem(cipher, sizeof *cipher);
    free(cipher);
}

/* Returns a cipher, or NULL where this processor or the memory does not allow it. */
struct cipher *fleetcast_cipher_new(const uint8_t key[32], const uint8_t initialization_vector[NONCE_BYTES])
{
    struct cipher *cipher = aligned_alloc(alignof(struct cipher), sizeof *cipher);
    if (cipher == NULL)
        return NULL;
    memset(cipher, 0, sizeof *cipher);
    cipher->manager = alloc_mb_mgr(0);
    if (cipher->manager != NULL)
        init_mb_mgr_auto(cipher->manager, NULL);
    if (cipher->manager == NULL || imb_get_errno(cipher->manager) != 0) {
        fleetcast_cipher_free(cipher);
        return NULL;
    }
    IMB_AES256_GCM_PRE(cipher->manager, key, &cipher->key);
    memcpy(cipher->initialization_vector, initialization_vector, NONCE_BYTES);
    return cipher;
}

static void set_nonce(const struct cipher *cipher, const uint8_t *header, uint8_t nonce[NONCE_BYTES])
{
    uint64_t mask, counter;
    memcpy(&mask, cipher->initialization_vector + SALT_BYTES, sizeof mask);
    memcpy(&counter, header + COUNTER_AT, sizeof counter);
    mask ^= counter;
    memcpy(nonce, cipher->initialization_vector, SALT_BYTES);
    memcpy(nonce + SALT_BYTES, &mask, sizeof mask);
}

static int all_within(const int64_t *numbers, size_t count, size_t limit)
{
    for (size_t i = 0; i < count; i++)
        if (numbers[i] < 0 || (uint64_t)numbers[i] >= limit)
            return 0;
    return 1;
}

/* Seals the symbols that lie at `symbols` into the first of the `slot_count` slots of `stride` bytes each, whose headers
 * are filled in. Returns `count`, or -1, with nothing done, if there are more symbols than slots. */
int64_t fleetcast_seal(const struct cipher *cipher, uint8_t *slots, size_t slot_count, size_t stride,
                       const uint8_t *const *symbols, size_t count)
{
    const size_t size = stride - HEADER_BYTES - SEAL_BYTES;
    struct gcm_context_data context;
    uint8_t nonce[NONCE_BYTES];
    if (count > slot_count)
        return -1;
    for (size_t i = 0; i < count; i++) {
        uint8_t *header = slots + i * stride, *body = header + HEADER_BYTES;
        set_nonce(cipher, header, nonce);
        IMB_AES256_GCM_ENC(cipher->manager, &cipher->key, &context, body, symbols[i], size, nonce, header, HEADER_BYTES,
                           body + size, SEAL_BYTES);
    }
    return (int64_t)count;
}

/* Opens the datagram at `header`, whose symbol has `size` bytes, into `place`. Returns whether it is genuine. */
static int open_one(const struct cipher *cipher, const uint8_t *header, size_t size, uint8_t *place)
{
    struct gcm_context_data context;
    const uint8_t *body = header + HEADER_BYTES;
    uint8_t nonce[NONCE_BYTES], seal[SEAL_BYTES], difference = 0;
    set_nonce(cipher, header, nonce);
    IMB_AES256_GCM_DEC(cipher->manager, &cipher->key, &context, place, body, size, nonce, header, HEADER_BYTES, seal,
                       SEAL_BYTES);
    for (int i = 0; i < SEAL_BYTES; i++)
        difference |= seal[i] ^ body[size + i];
    return difference == 0;
}

/* Opens the slots `numbers` of `slot_count`, each into its one of the places `symbols` of the `symbol_count` in `memory`.
 * Sets failed[i] to 1 if the i-th is not genuine, else to 0. Returns how many are not, or -1, with nothing done, if a
 * number is out of range. */
int64_t fleetcast_open(const struct cipher *cipher, const uint8_t *slots, size_t slot_count, size_t stride,
                       uint8_t *memory, size_t symbol_count, const int64_t *numbers, const int64_t *symbols, size_t count,
                       uint8_t *failed)
{
    const size_t size = stride - HEADER_BYTES - SEAL_BYTES;
    int64_t failures = 0;
    if (!all_within(numbers, count, slot_count) || !all_within(symbols, count, symbol_count))
        return -1;
    for (size_t i = 0; i < count; i++) {
        failed[i] = !open_one(cipher, slots + (size_t)numbers[i] * stride, size, memory + (size_t)symbols[i] * size);
        failures += failed[i];
    }
    return failures;
}

/* Opens the first of the slots `numbers` into their places, as long as each header begins as it should, the symbols ascend
 * and have a place, which is not held, and the datagram is genuine; marks them held. Returns how many, or -1, with nothing
 * done, if a number of a slot is out of range. */
int64_t fleetcast_open_run(struct run *run, const int64_t *numbers, size_t count)
{
    const size_t size = run->stride - HEADER_BYTES - SEAL_BYTES;
    size_t opened = 0;
    if (!all_within(numbers, count, run->slot_count))
        return -1;
    for (; opened < count; opened++, run->opened++) {
        const uint8_t *header = run->slots + (size_t)numbers[opened] * run->stride, *number = header + SYMBOL_AT;
        const size_t symbol = (size_t)number[0] << 24 | (size_t)number[1] << 16 | (size_t)number[2] << 8 | number[3];
        if (memcmp(header, run->beginning, SYMBOL_AT) != 0 || symbol < run->stop || symbol >= run->symbol_count ||
            run->held[symbol] || !open_one(run->cipher, header, size, run->memory + symbol * size))
            break;
        run->held[symbol] = 1;
        run->stop = symbol + 1;
        memcpy(&run->last_counter, header + COUNTER_AT, sizeof run->last_counter);
        if (run->opened == 0)
            run->first_counter = run->last_counter;
    }
    return (int64_t)opened;
}
