/* Adds up multiples of symbols over GF(2^16) and inverts matrices, for rebuilding the few that are lost of a codeword.
 * What the field is, is not known here: field.py gives each factor as what it makes of each of the 16 bits of an element,
 * and the tables of logarithms. */

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { BITS = 16, NIBBLES = 4, VALUES = 16, BLOCK = 64, MOST_ROWS = 64 };

/* Adds to `sum` the multiple of `symbol` by the factor whose images of the bits are `images`. A symbol is blocks of 64
 * bytes, the low bytes of 32 elements and then the high ones: a table of 16 for each nibble gives 32 products at once. */
__attribute__((target("avx2"))) static void add_multiple(const uint16_t images[BITS], const uint8_t *symbol, uint8_t *sum,
                                                         size_t bytes)
{
    const __m256i low_nibbles = _mm256_set1_epi8(0x0f);
    __m256i low_bytes[NIBBLES], high_bytes[NIBBLES];
    for (int nibble = 0; nibble < NIBBLES; nibble++) {
        uint8_t low[VALUES] = {0}, high[VALUES] = {0};
        for (int value = 1; value < VALUES; value++) {
            const uint16_t image = images[nibble * 4 + __builtin_ctz((unsigned)value)];
            low[value] = low[value & (value - 1)] ^ (uint8_t)image;
            high[value] = high[value & (value - 1)] ^ (uint8_t)(image >> 8);
        }
        low_bytes[nibble] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)low));
        high_bytes[nibble] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)high));
    }
    for (size_t at = 0; at + BLOCK <= bytes; at += BLOCK) {
        const __m256i low = _mm256_loadu_si256((const __m256i *)(symbol + at));
        const __m256i high = _mm256_loadu_si256((const __m256i *)(symbol + at + BLOCK / 2));
        const __m256i nibbles[NIBBLES] = {
            _mm256_and_si256(low, low_nibbles),
            _mm256_and_si256(_mm256_srli_epi16(low, 4), low_nibbles),
            _mm256_and_si256(high, low_nibbles),
            _mm256_and_si256(_mm256_srli_epi16(high, 4), low_nibbles),
        };
        __m256i *into_low = (__m256i *)(sum + at), *into_high = (__m256i *)(sum + at + BLOCK / 2);
        __m256i sum_low = _mm256_loadu_si256(into_low), sum_high = _mm256_loadu_si256(into_high);
        for (int nibble = 0; nibble < NIBBLES; nibble++) {
            sum_low = _mm256_xor_si256(sum_low, _mm256_shuffle_epi8(low_bytes[nibble], nibbles[nibble]));
            sum_high = _mm256_xor_si256(sum_high, _mm256_shuffle_epi8(high_bytes[nibble], nibbles[nibble]));
        }
        _mm256_storeu_si256(into_low, sum_low);
        _mm256_storeu_si256(into_high, sum_high);
    }
}

/* Sets each of the `rows` sums of `bytes` bytes, a multiple of 64, to the sum of the `columns` symbols times the factors of
 * its row: images[row][column][bit]. Returns 0, or -1, with nothing done, if this processor cannot. */
int fleetcast_combine(const uint16_t *images, const uint8_t *symbols, uint8_t *sums, size_t rows, size_t columns,
                      size_t bytes)
{
    if (!__builtin_cpu_supports("avx2"))
        return -1;
    memset(sums, 0, rows * bytes);
    for (size_t row = 0; row < rows; row++)
        for (size_t column = 0; column < columns; column++)
            add_multiple(images + (row * columns + column) * BITS, symbols + column * bytes, sums + row * bytes, bytes);
    return 0;
}

/* Inverts a matrix of `size` rows and columns in its place. logarithms[0] stands for that of zero; elements[sum] is the
 * element of a sum of two logarithms, zero if one of them is that; `order` is how many elements have one. Returns 0; -1, with
 * nothing done, if it is too large; -2, in the middle, if a square part of it from the upper left corner is singular. */
int fleetcast_invert(uint16_t *matrix, size_t size, const int32_t *logarithms, const uint16_t *elements, int32_t order)
{
    int32_t scaled[MOST_ROWS];
    if (size > MOST_ROWS)
        return -1;
    for (size_t pivot = 0; pivot < size; pivot++) {
        uint16_t *row = matrix + pivot * size;
        const int32_t inverse = order - logarithms[row[pivot]];
        if (row[pivot] == 0)
            return -2;
        row[pivot] = 1;
        for (size_t column = 0; column < size; column++) {
            const int32_t logarithm = logarithms[row[column]];
            scaled[column] = row[column] == 0 ? logarithm : (logarithm + inverse) % order;
            row[column] = elements[scaled[column]];
        }
        for (size_t other = 0; other < size; other++) {
            uint16_t *into = matrix + other * size;
            const int32_t factor = logarithms[into[pivot]];
            if (other == pivot || into[pivot] == 0)
                continue;
            into[pivot] = 0;
            for (size_t column = 0; column < size; column++)
                into[column] ^= elements[factor + scaled[column]];
        }
    }
    return 0;
}
