/* Adds up multiples of symbols over GF(2^16) and inverts matrices, for rebuilding the few that are lost of a codeword.
 * What the field is, is not known here: field.py gives each factor as what it makes of each of the 16 bits of an element,
 * and the tables of logarithms. A symbol is blocks of 64 bytes, the low bytes of 32 elements and then the high ones. */

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { BITS = 16, NIBBLES = 4, VALUES = 16, BLOCK = 64, MOST_ROWS = 64, PARTS = 4, CACHE_LINE = 64 };

/* Adds to `sum` the multiple of `symbol` by the factor whose images of the bits are `images`: a table of 16 for each nibble
 * of an element gives 32 products at once. */
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

/* Sets multipliers[factor] to what `fleetcast_accumulate` takes for the `count` factors images[factor][bit]: for the low and
 * the high byte of a product, what the low and the high byte of an element give to it, as matrices of 8 times 8 bits. The
 * byte for bit 0 of the result is the highest of a matrix: GF2P8AFFINEQB wants it so. */
void fleetcast_multipliers(const uint16_t *images, uint64_t *multipliers, size_t count)
{
    for (size_t part = 0; part < count * PARTS; part++) {
        const uint16_t *bits = images + part / PARTS * BITS + part % 2 * 8;
        const int first = part % PARTS / 2 * 8;
        uint64_t matrix = 0;
        for (int bit = 0; bit < 8; bit++)
            for (int from = 0; from < 8; from++)
                matrix |= (uint64_t)(bits[from] >> (first + bit) & 1) << ((7 - bit) * 8 + from);
        multipliers[part] = matrix;
    }
}

struct factor {
    __m256i low_to_low, high_to_low, low_to_high, high_to_high;
};

__attribute__((target("avx2"))) static inline struct factor factor_of(const uint64_t multiplier[PARTS])
{
    return (struct factor){
        _mm256_set1_epi64x((long long)multiplier[0]),
        _mm256_set1_epi64x((long long)multiplier[1]),
        _mm256_set1_epi64x((long long)multiplier[2]),
        _mm256_set1_epi64x((long long)multiplier[3]),
    };
}

/* Adds the products of a block's elements and a factor to a sum's low and high bytes. */
__attribute__((target("avx2,gfni"))) static inline void add_block(const struct factor *factor, const uint8_t *block,
                                                                  __m256i *sum_low, __m256i *sum_high)
{
    const __m256i low = _mm256_loadu_si256((const __m256i *)block);
    const __m256i high = _mm256_loadu_si256((const __m256i *)(block + BLOCK / 2));
    *sum_low = _mm256_xor_si256(*sum_low, _mm256_xor_si256(_mm256_gf2p8affine_epi64_epi8(low, factor->low_to_low, 0),
                                                           _mm256_gf2p8affine_epi64_epi8(high, factor->high_to_low, 0)));
    *sum_high = _mm256_xor_si256(*sum_high, _mm256_xor_si256(_mm256_gf2p8affine_epi64_epi8(low, factor->low_to_high, 0),
                                                             _mm256_gf2p8affine_epi64_epi8(high, factor->high_to_high, 0)));
}

/* Adds to `sum` the multiples of two symbols: of one after the other, it would be loaded and stored twice. */
__attribute__((target("avx2,gfni"))) static void add_pair(const uint64_t *first_multiplier, const uint8_t *first,
                                                          const uint64_t *second_multiplier, const uint8_t *second,
                                                          uint8_t *sum, size_t bytes)
{
    const struct factor first_factor = factor_of(first_multiplier), second_factor = factor_of(second_multiplier);
    for (size_t at = 0; at + BLOCK <= bytes; at += BLOCK) {
        __m256i *into_low = (__m256i *)(sum + at), *into_high = (__m256i *)(sum + at + BLOCK / 2);
        __m256i low = _mm256_loadu_si256(into_low), high = _mm256_loadu_si256(into_high);
        add_block(&first_factor, first + at, &low, &high);
        add_block(&second_factor, second + at, &low, &high);
        _mm256_storeu_si256(into_low, low);
        _mm256_storeu_si256(into_high, high);
    }
}

/* Returns the number of the first symbol from `symbol` on that is there, or `count`, and has it brought into the cache. */
static size_t next_there(const uint8_t *const *symbols, size_t symbol, size_t count, size_t bytes)
{
    while (symbol < count && symbols[symbol] == NULL)
        symbol++;
    for (size_t at = 0; symbol < count && at < bytes; at += CACHE_LINE)
        __builtin_prefetch(symbols[symbol] + at);
    return symbol;
}

/* Adds to each of the `count` sums of `bytes` bytes, a multiple of 64, the multiples of the symbols by the factors
 * multipliers[symbol][columns[sum]] of `column_count` for each symbol. Symbols that are NULL are left out. Returns 0, or -1,
 * with nothing done, if this processor cannot or a column is out of range. */
int fleetcast_accumulate(const uint64_t *multipliers, size_t column_count, const int64_t *columns, size_t count,
                         const uint8_t *const *symbols, size_t symbol_count, uint8_t *sums, size_t bytes)
{
    static const uint64_t zero[PARTS];
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("gfni"))
        return -1;
    for (size_t sum = 0; sum < count; sum++)
        if (columns[sum] < 0 || (uint64_t)columns[sum] >= column_count)
            return -1;
    size_t first = next_there(symbols, 0, symbol_count, bytes);
    size_t second = next_there(symbols, first + 1, symbol_count, bytes);
    while (first < symbol_count) {
        const size_t third = next_there(symbols, second + 1, symbol_count, bytes);
        const size_t fourth = next_there(symbols, third + 1, symbol_count, bytes);
        for (size_t sum = 0; sum < count; sum++) {
            const size_t column = (size_t)columns[sum];
            const uint64_t *of_first = multipliers + (first * column_count + column) * PARTS;
            if (second < symbol_count)
                add_pair(of_first, symbols[first], multipliers + (second * column_count + column) * PARTS, symbols[second],
                         sums + sum * bytes, bytes);
            else
                add_pair(of_first, symbols[first], zero, symbols[first], sums + sum * bytes, bytes);
        }
        first = third;
        second = fourth;
    }
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
