// Numbers several at a time, and memory for them.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace native {

using Index = std::int64_t;
#if defined(__AVX512F__)
constexpr Index VECTOR = 16;  // as many numbers as a register holds
#elif defined(__AVX__)
constexpr Index VECTOR = 8;
#else
constexpr Index VECTOR = 4;
#endif
constexpr Index BYTES = VECTOR * sizeof(float);
constexpr Index DOUBLES = VECTOR / 2;

typedef float Vector __attribute__((vector_size(BYTES)));
typedef float Loose __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef std::int32_t Integers __attribute__((vector_size(BYTES)));
typedef float Four __attribute__((vector_size(16)));
#if defined(__clang__) || __GNUC__ >= 12
#define shuffle(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef std::int32_t FourIntegers __attribute__((vector_size(16)));
#define shuffle(a, b, i, j, k, l) __builtin_shuffle(a, b, FourIntegers{i, j, k, l})
#endif
typedef double Doubles __attribute__((vector_size(BYTES), may_alias));

inline Index padded(Index count) { return (count + VECTOR - 1) / VECTOR * VECTOR; }
inline Index floor_div(Index a, Index b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
inline Vector load(const float* from) { return *reinterpret_cast<const Loose*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<Loose*>(to) = value; }
inline Vector fill(float value) { return Vector{} + value; }
inline float sum(Vector v) {
    double total = 0;
    for (Index i = 0; i < VECTOR; ++i) total += v[i];
    return float(total);
}

// Numbers from a multiple of 64 bytes on, zeros at first.
template <typename T>
class Array {
public:
    explicit Array(Index size = 0) : size_(size), data_(nullptr) {
        if (size == 0) return;
        const std::size_t bytes = (size * sizeof(T) + 127) / 64 * 64;  // a vector may be read past the end
        data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
        if (!data_) throw std::bad_alloc();
        std::memset(static_cast<void*>(data_.get()), 0, bytes);
    }
    operator T*() { return data_.get(); }
    operator const T*() const { return data_.get(); }
    Index size() const { return size_; }
    void clear() { std::fill_n(data_.get(), size_, T(0)); }

private:
    struct Free { void operator()(T* p) const { std::free(p); } };
    Index size_;
    std::unique_ptr<T, Free> data_;
};
using Floats = Array<float>;

// A square of 4 x 4 numbers, turned over.
inline void transpose_four(const float* from, Index from_step, float* to, Index to_step) {
    Four rows[4];
    for (Index i = 0; i < 4; ++i) std::memcpy(&rows[i], from + i * from_step, sizeof(Four));
    const Four a = shuffle(rows[0], rows[1], 0, 4, 1, 5), b = shuffle(rows[2], rows[3], 0, 4, 1, 5);
    const Four c = shuffle(rows[0], rows[1], 2, 6, 3, 7), d = shuffle(rows[2], rows[3], 2, 6, 3, 7);
    const Four turned[4] = {shuffle(a, b, 0, 1, 4, 5), shuffle(a, b, 2, 3, 6, 7), shuffle(c, d, 0, 1, 4, 5),
                            shuffle(c, d, 2, 3, 6, 7)};
    for (Index i = 0; i < 4; ++i) std::memcpy(to + i * to_step, &turned[i], sizeof(Four));
}

}  // namespace native
