/* Adds up multiples of symbols over GF(2^16), for making parity and for rebuilding what is lost of a codeword.
 * What the field is, is not known here: parity/field.py gives each factor as what it makes of each of the 16 bits of an element.
 * A symbol is blocks of 64 bytes, the low bytes of 32 elements and then the high ones. */

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { BITS = 16, NIBBLES = 4, BLOCK = 64, PARTS = 4, CACHE_LINE = 64 };

static int has_gfni(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("gfni"); }

/* Sets multipliers[factor] to what `fleetcast_accumulate` takes for the `count` factors images[factor][bit]. Where this
 * processor multiplies matrices of bits: for the low and the high byte of a product, what the low and the high byte of an
 * element give to it, as matrices of 8 times 8 bits; the byte for bit 0 of the result is the highest of a matrix, as
 * GF2P8AFFINEQB wants it. Elsewhere: the images as they are. */
void fleetcast_multipliers(const uint16_t *images, uint64_t *multipliers, size_t count)
{
    if (!has_gfni()) {
        memcpy(multipliers, images, count * BITS * sizeof *images);
        return;
    }
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

/* Returns, for each value of a nibble (twice 16), one byte of the product: what the images of its set bits add up to. */
__attribute__((target("avx2"))) static inline __m256i products_of(const uint16_t images[BITS / NIBBLES], int shift)
{
    static const uint8_t values[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const __m128i nibbles = _mm_loadu_si128((const __m128i *)values);
    __m128i products = _mm_setzero_si128();
    for (int bit = 0; bit < BITS / NIBBLES; bit++) {
        const __m128i of_bit = _mm_set1_epi8((char)(1 << bit));
        const __m128i is_set = _mm_cmpeq_epi8(_mm_and_si128(nibbles, of_bit), of_bit);
        products = _mm_xor_si128(products, _mm_and_si128(is_set, _mm_set1_epi8((char)(images[bit] >> shift))));
    }
    return _mm256_broadcastsi128_si256(products);
}

/* Adds to `sum` the multiple of `symbol` by the factor whose images are in `multiplier`: a table of 16 for each nibble of an
 * element gives 32 products at once. */
__attribute__((target("avx2"))) static void add_by_tables(const uint64_t multiplier[PARTS], const uint8_t *symbol,
                                                          uint8_t *sum, size_t bytes)
{
    const __m256i low_nibbles = _mm256_set1_epi8(0x0f);
    uint16_t images[BITS];
    __m256i low_bytes[NIBBLES], high_bytes[NIBBLES];
    memcpy(images, multiplier, sizeof images);
    for (int nibble = 0; nibble < NIBBLES; nibble++) {
        low_bytes[nibble] = products_of(images + nibble * (BITS / NIBBLES), 0);
        high_bytes[nibble] = products_of(images + nibble * (BITS / NIBBLES), 8);
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
    const int by_matrices = has_gfni();
    if (!__builtin_cpu_supports("avx2"))
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
            const uint64_t *of_second = second < symbol_count ? multipliers + (second * column_count + column) * PARTS : zero;
            const uint8_t *second_symbol = symbols[second < symbol_count ? second : first];
            if (by_matrices) {
                add_pair(of_first, symbols[first], of_second, second_symbol, sums + sum * bytes, bytes);
                continue;
            }
            add_by_tables(of_first, symbols[first], sums + sum * bytes, bytes);
            add_by_tables(of_second, second_symbol, sums + sum * bytes, bytes);
        }
        first = third;
        second = fourth;
    }
    return 0;
}
