/* Fingerprints of symbols: fingerprints.py says what they are, and does the same without this file. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "symbols are read as little-endian words"
#endif

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#define FOR_THIS_PROCESSOR __attribute__((target_clones("avx2", "default"), optimize("O3")))
#else
#define FOR_THIS_PROCESSOR
#endif

/* Writes the fingerprint of each of the `count` symbols of `words` times 4 bytes that lie at `symbols`; there are
 * words + 1 factors. */
FOR_THIS_PROCESSOR void fleetcast_fingerprints(const uint64_t *factors, size_t words, const uint8_t *const *symbols,
                                               size_t count, uint16_t *fingerprints)
{
    for (size_t i = 0; i < count; i++) {
        const uint8_t *symbol = symbols[i];
        uint64_t sum = factors[0];
        for (size_t word = 0; word < words; word++) {
            uint32_t value;
            memcpy(&value, symbol + 4 * word, sizeof value);
            sum += factors[1 + word] * value;
        }
        fingerprints[i] = (uint16_t)(sum >> 48);
    }
}
