/* The threefry2x32 block cipher (Salmon, Moraes, Dror, Shaw, 2011) over a run of counters.
 * One plain loop that a compiler turns into vector code; `kernel.py` builds and calls it. */

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

/* Define a function that fills each of `lanes` rows with `count` ciphers, written as `word`. */
#define FILL(name, type, word)                                                           \
    EVERY_VECTOR_WIDTH                                                                   \
    void name(const int64_t *keys, const int64_t *start, int64_t lanes, int64_t count,   \
              type *out)                                                                 \
    {                                                                                    \
        for (int64_t lane = 0; lane < lanes; lane++, out += count) {                     \
            const uint32_t k0 = (uint32_t)keys[2 * lane], k1 = (uint32_t)keys[2 * lane + 1]; \
            const uint32_t k2 = k0 ^ k1 ^ 0x1BD11BDA, first = (uint32_t)start[lane];     \
            for (int64_t i = 0; i < count; i++) {                                        \
                uint32_t x0 = k0, x1 = (uint32_t)(first + i) + k1;                       \
                EVEN INJECT(k1, k2, 1) ODD INJECT(k2, k0, 2)                             \
                EVEN INJECT(k0, k1, 3) ODD INJECT(k1, k2, 4)                             \
                EVEN INJECT(k2, k0, 5)                                                   \
                out[i] = word;                                                           \
            }                                                                            \
        }                                                                                \
    }

FILL(words32, uint32_t, x0 ^ x1)
FILL(words64, uint64_t, (uint64_t)x0 << 32 | x1)
FILL(fractions, float, (float)(int32_t)((x0 ^ x1) >> 9) * 0x1p-23f)
