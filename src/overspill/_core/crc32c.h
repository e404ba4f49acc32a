/* CRC-32C (Castagnoli), continued from a seed as zlib.crc32(data, seed) is.
 *
 * The processor's own instruction takes eight bytes in three cycles but can start one every cycle, so long inputs run as three interleaved streams whose
 * results are joined by tables of "advance over n zero bytes" (the method of Mark Adler's crc32c.c, zlib licence, rewritten here).
 * x86-64 needs SSE 4.2 (2008), AArch64 the CRC extension; anything else gets the table of bytes. Where the processor multiplies polynomials 256 bits at a time
 * (VPCLMULQDQ: 2019 and later), long inputs are folded instead (the method of Intel's "Fast CRC computation using PCLMULQDQ"), twice as fast.
 */
#ifndef OVERSPILL_CRC32C_H
#define OVERSPILL_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CRC32C_POLYNOMIAL 0x82f63b78u

#if defined(__SSE4_2__)
#include <nmmintrin.h>
#define CRC32C_STEP8(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
#define CRC32C_STEP4(crc, word) _mm_crc32_u32((crc), (word))
#define CRC32C_STEP1(crc, byte) _mm_crc32_u8((crc), (byte))
static inline int crc32c_supported(void) { return __builtin_cpu_init(), __builtin_cpu_supports("sse4.2"); }
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#define CRC32C_STEP8(crc, word) __crc32cd((crc), (word))
#define CRC32C_STEP4(crc, word) __crc32cw((crc), (word))
#define CRC32C_STEP1(crc, byte) __crc32cb((crc), (byte))
static inline int crc32c_supported(void) { return 1; }
#else
static uint32_t crc32c_bytes[256];
static inline uint32_t crc32c_byte(uint32_t crc, uint8_t byte) {
    return crc32c_bytes[(crc ^ byte) & 0xff] ^ (crc >> 8);
}
static inline uint32_t crc32c_word(uint32_t crc, uint64_t word, int n) {
    for (int i = 0; i < n; i++, word >>= 8) crc = crc32c_byte(crc, (uint8_t)word);
    return crc;
}
#define CRC32C_STEP8(crc, word) crc32c_word((crc), (word), 8)
#define CRC32C_STEP4(crc, word) crc32c_word((crc), (word), 4)
#define CRC32C_STEP1(crc, byte) crc32c_byte((crc), (byte))
static inline int crc32c_supported(void) { return 1; }
#endif

#define CRC32C_LONG 4096
#define CRC32C_SHORT 256
static uint32_t crc32c_over_long[4][256];
static uint32_t crc32c_over_short[4][256];

/* The register after `n` zero bytes is a linear map of the register before: keep it as four tables of one byte each. */
static void crc32c_zeros_table(uint32_t table[4][256], size_t n) {
    uint32_t column[32];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t crc = 1u << bit;
        for (size_t i = 0; i < n; i += 8) crc = CRC32C_STEP8(crc, (uint64_t)0);
        column[bit] = crc;
    }
    for (int k = 0; k < 4; k++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t crc = 0;
            for (int bit = 0; bit < 8; bit++)
                if (byte >> bit & 1) crc ^= column[8 * k + bit];
            table[k][byte] = crc;
        }
}

#if defined(__x86_64__) && defined(__SSE4_2__)
#include <immintrin.h>
#define CRC32C_FOLDED 1024
static int crc32c_folds;
static uint64_t crc32c_fold_by[3][2]; /* over 1024, 256 and 128 bits: what the first and the second half of 128 bits are multiplied by */

/* x to the power of n, modulo the polynomial; bit 31 is the power 0. */
static uint32_t crc32c_power(int n) {
    uint32_t power = 1u << 31;
    while (n--) power = (power >> 1) ^ ((power & 1) ? CRC32C_POLYNOMIAL : 0);
    return power;
}

static void crc32c_fold_prepare(void) {
    static const int over[3] = {1024, 256, 128};
    crc32c_folds = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("vpclmulqdq");
    for (int i = 0; i < 3; i++) {
        /* A product of two mirrored halves comes out one power too high, and a constant of 32 bits in 64 stands 32 powers too high. */
        crc32c_fold_by[i][0] = crc32c_power(over[i] + 64 - 33);
        crc32c_fold_by[i][1] = crc32c_power(over[i] - 33);
    }
}

__attribute__((target("avx2,vpclmulqdq,pclmul"))) static inline __m256i crc32c_fold(__m256i bits, __m256i by, __m256i onto) {
    return _mm256_xor_si256(_mm256_xor_si256(_mm256_clmulepi64_epi128(bits, by, 0x00), _mm256_clmulepi64_epi128(bits, by, 0x11)), onto);
}

/* All but the last few of `n` bytes, at least CRC32C_FOLDED. */
__attribute__((target("avx2,vpclmulqdq,pclmul"))) static const uint8_t *crc32c_fold_all(uint32_t *crc, const uint8_t *p, size_t *n) {
    const __m256i by_1024 = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)crc32c_fold_by[0]));
    const __m256i by_256 = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)crc32c_fold_by[1]));
    const __m128i by_128 = _mm_loadu_si128((const __m128i *)crc32c_fold_by[2]);
    const __m256i *from = (const __m256i *)p;
    __m256i a = _mm256_xor_si256(_mm256_loadu_si256(from), _mm256_zextsi128_si256(_mm_cvtsi32_si128((int)*crc)));
    __m256i b = _mm256_loadu_si256(from + 1), c = _mm256_loadu_si256(from + 2), d = _mm256_loadu_si256(from + 3);
    __m128i last;
    for (from += 4, *n -= 128; *n >= 128; from += 4, *n -= 128) {
        a = crc32c_fold(a, by_1024, _mm256_loadu_si256(from));
        b = crc32c_fold(b, by_1024, _mm256_loadu_si256(from + 1));
        c = crc32c_fold(c, by_1024, _mm256_loadu_si256(from + 2));
        d = crc32c_fold(d, by_1024, _mm256_loadu_si256(from + 3));
    }
    d = crc32c_fold(crc32c_fold(crc32c_fold(a, by_256, b), by_256, c), by_256, d);
    last = _mm256_castsi256_si128(d);
    last = _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(last, by_128, 0x00), _mm_clmulepi64_si128(last, by_128, 0x11)), _mm256_extracti128_si256(d, 1));
    *crc = CRC32C_STEP8(CRC32C_STEP8(0, (uint64_t)_mm_extract_epi64(last, 0)), (uint64_t)_mm_extract_epi64(last, 1));
    return (const uint8_t *)from;
}
#endif

/* Runs when a module that includes this is loaded: each has its own tables. A processor without the instruction is found out by the import of `record` first. */
__attribute__((constructor)) static void crc32c_prepare(void) {
    if (!crc32c_supported()) return;
#if !defined(__SSE4_2__) && !defined(__ARM_FEATURE_CRC32)
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) ? CRC32C_POLYNOMIAL : 0);
        crc32c_bytes[byte] = crc;
    }
#endif
    crc32c_zeros_table(crc32c_over_long, CRC32C_LONG);
    crc32c_zeros_table(crc32c_over_short, CRC32C_SHORT);
#ifdef CRC32C_FOLDED
    crc32c_fold_prepare();
#endif
}

static inline uint32_t crc32c_advance(uint32_t table[4][256], uint32_t crc) {
    return table[0][crc & 0xff] ^ table[1][crc >> 8 & 0xff] ^ table[2][crc >> 16 & 0xff] ^ table[3][crc >> 24];
}

static inline uint64_t crc32c_load8(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

static const uint8_t *crc32c_three_streams(uint32_t *crc, const uint8_t *p, size_t *n, size_t block, uint32_t table[4][256]) {
    while (*n >= 3 * block) {
        uint32_t a = *crc, b = 0, c = 0;
        const uint8_t *end = p + block;
        for (; p < end; p += 8) {
            a = CRC32C_STEP8(a, crc32c_load8(p));
            b = CRC32C_STEP8(b, crc32c_load8(p + block));
            c = CRC32C_STEP8(c, crc32c_load8(p + 2 * block));
        }
        *crc = crc32c_advance(table, crc32c_advance(table, a) ^ b) ^ c;
        p += 2 * block;
        *n -= 3 * block;
    }
    return p;
}

static inline uint32_t crc32c(uint32_t seed, const void *data, size_t n) {
    const uint8_t *p = (const uint8_t *)data;
    uint32_t crc = ~seed;
#ifdef CRC32C_FOLDED
    if (n >= CRC32C_FOLDED && crc32c_folds) p = crc32c_fold_all(&crc, p, &n);
#endif
    if (n >= 3 * CRC32C_SHORT) {
        p = crc32c_three_streams(&crc, p, &n, CRC32C_LONG, crc32c_over_long);
        p = crc32c_three_streams(&crc, p, &n, CRC32C_SHORT, crc32c_over_short);
    }
    for (; n >= 8; p += 8, n -= 8) crc = CRC32C_STEP8(crc, crc32c_load8(p));
    if (n & 4) {
        uint32_t word;
        memcpy(&word, p, 4);
        crc = CRC32C_STEP4(crc, word);
        p += 4;
    }
    for (n &= 3; n; p++, n--) crc = CRC32C_STEP1(crc, *p);
    return ~crc;
}

/* Check code of a word of settle marks or attempt counts: CRC over two u32. */
static inline uint32_t crc32c_pair(uint32_t seed, uint32_t low, uint32_t high) {
    return ~CRC32C_STEP8(~seed, (uint64_t)low | (uint64_t)high << 32);
}

/* Check code of a header of `n` bytes, a multiple of 8, that has its place in the first four. These four apart, the words are loaded as the fields were stored: a load
 * that needs two stores which are still under way must wait for both. */
static inline uint32_t crc32c_of_header(uint32_t seed, const void *header, size_t n) {
    const uint8_t *p = (const uint8_t *)header;
    uint32_t crc, second;
    memcpy(&second, p + 4, 4);
    crc = CRC32C_STEP4(~seed, second);
#pragma GCC unroll 8
    for (size_t at = 8; at < n; at += 8) crc = CRC32C_STEP8(crc, crc32c_load8(p + at));
    return ~crc;
}

/* memcpy of words, with loads no wider than the stores before them, for the same reason. */
static inline void crc32c_copy_words(void *to, const void *from, size_t n) {
#pragma GCC unroll 8
    for (size_t at = 0; at < n; at += 8) __atomic_store_n((uint64_t *)((uint8_t *)to + at), crc32c_load8((const uint8_t *)from + at), __ATOMIC_RELAXED);
}

/* The last store of a record: nothing before it may be moved behind it. */
static inline void crc32c_publish8(void *where, uint64_t word) {
    __atomic_store_n((uint64_t *)where, word, __ATOMIC_RELEASE);
}

#endif
