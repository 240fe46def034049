/* The threefry2x32 block cipher (Salmon, Moraes, Dror, Shaw, 2011) over a run of counters.
 * Plain loops that a compiler turns into vector code; `kernel.py` builds and calls them. */

#include <stdint.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define EVERY_VECTOR_WIDTH __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EVERY_VECTOR_WIDTH
#endif

#define ROUND(r) x0 += x1; x1 = (x1 << r) | (x1 >> (32 - r)); x1 ^= x0;
#define EVEN ROUND(13) ROUND(15) ROUND(26) ROUND(6)
#define ODD ROUND(17) ROUND(29) ROUND(16) ROUND(24)
#define INJECT(a, b, group) x0 += a; x1 += b + group;

/* Define a function that fills each of `lanes` rows with `count` ciphers, written as `word`; the
 * counters of a row begin at its `start`, or all at 0 if that is NULL. Threads share the blocks of
 * all rows; without OpenMP one thread does them all. */
#define FILL(name, type, word)                                                           \
    EVERY_VECTOR_WIDTH                                                                   \
    void name##_block(uint32_t k0, uint32_t k1, uint32_t first, int64_t count, type *out) \
    {                                                                                    \
        const uint32_t k2 = k0 ^ k1 ^ 0x1BD11BDA;                                        \
        for (int64_t i = 0; i < count; i++) {                                            \
            uint32_t x0 = k0, x1 = (uint32_t)(first + i) + k1;                           \
            EVEN INJECT(k1, k2, 1) ODD INJECT(k2, k0, 2)                                 \
            EVEN INJECT(k0, k1, 3) ODD INJECT(k1, k2, 4)                                 \
            EVEN INJECT(k2, k0, 5)                                                       \
            out[i] = word;                                                               \
        }                                                                                \
    }                                                                                    \
    void name(const int64_t *keys, const int64_t *start, int64_t lanes, int64_t count,   \
              type *out, int threads)                                                    \
    {                                                                                    \
        _Pragma("omp parallel for collapse(2) num_threads(threads) if (lanes * count > BLOCK)") \
        for (int64_t lane = 0; lane < lanes; lane++)                                     \
            for (int64_t i = 0; i < count; i += BLOCK)                                   \
                name##_block((uint32_t)keys[2 * lane], (uint32_t)keys[2 * lane + 1],     \
                             (uint32_t)((start ? start[lane] : 0) + i),                  \
                             count - i < BLOCK ? count - i : BLOCK, out + lane * count + i); \
    }

#define BLOCK 4096 /* words: many enough that calling a thread for them is nothing */

FILL(words32, uint32_t, x0 ^ x1)
FILL(words64, uint64_t, (uint64_t)x0 << 32 | x1)
FILL(fractions, float, (float)(int32_t)((x0 ^ x1) >> 9) * 0x1p-23f)
