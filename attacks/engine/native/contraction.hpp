// The one product that everything else is made of.

#pragma once

#include <vector>

#include "vectors.hpp"

namespace native {

#ifdef __AVX512F__
constexpr Index TILE = 8, WIDE_TILE = 16;  // as many sums as stay in registers
#else
constexpr Index TILE = 8, WIDE_TILE = 12;
#endif

// Where the terms of a sum are: for each of the starts, `inner` numbers and vectors with constant steps.
struct Terms {
    std::vector<Index> numbers, vectors;
    Index inner, number_step, vector_step;
};

// out[t] = first[t] + sum of number[t * stride + ...] * vector[...], for T sums that share their vectors.
template <Index T, Index STRIDE>
void contract_tile(float* out, Index out_step, const float* first, Index first_step, const float* numbers,
                   Index stride, const float* vectors, const Terms& terms) {
    if (STRIDE) stride = STRIDE;
    Vector sums[T];
#pragma GCC unroll 16
    for (Index t = 0; t < T; ++t) sums[t] = load(first + t * first_step);
    const Index starts = Index(terms.numbers.size());
    const Index inner = terms.inner, number_step = terms.number_step, vector_step = terms.vector_step;
    for (Index start = 0; start < starts; ++start) {
        const float* number = numbers + terms.numbers[start];
        const float* vector = vectors + terms.vectors[start];
        for (Index k = 0; k < inner; ++k, number += number_step, vector += vector_step) {
            const Vector v = load(vector);
#pragma GCC unroll 16
            for (Index t = 0; t < T; ++t) sums[t] += number[t * stride] * v;
        }
    }
#pragma GCC unroll 16
    for (Index t = 0; t < T; ++t) store(out + t * out_step, sums[t]);
}

using TileFunction = void (*)(float*, Index, const float*, Index, const float*, Index, const float*, const Terms&);

template <Index STRIDE>
TileFunction tile_function(Index sums) {
    static const TileFunction functions[] = {
        contract_tile<1, STRIDE>,  contract_tile<2, STRIDE>,  contract_tile<3, STRIDE>,  contract_tile<4, STRIDE>,
        contract_tile<5, STRIDE>,  contract_tile<6, STRIDE>,  contract_tile<7, STRIDE>,  contract_tile<8, STRIDE>,
        contract_tile<9, STRIDE>,  contract_tile<10, STRIDE>, contract_tile<11, STRIDE>, contract_tile<12, STRIDE>,
        contract_tile<13, STRIDE>, contract_tile<14, STRIDE>, contract_tile<15, STRIDE>, contract_tile<16, STRIDE>};
    return functions[sums - 1];
}

// The same for any number of sums, in tiles of about equal size.
void contract(Index sums, float* out, Index out_step, const float* first, Index first_step, const float* numbers,
              Index stride, const float* vectors, const Terms& terms) {
    const Index tiles = (sums + (stride == 1 ? WIDE_TILE : TILE) - 1) / (stride == 1 ? WIDE_TILE : TILE);
    for (Index tile = 0; tile < tiles; ++tile) {
        const Index from = sums * tile / tiles, size = sums * (tile + 1) / tiles - from;
        const TileFunction function = stride == 1    ? tile_function<1>(size)
                                      : stride == 16 ? tile_function<16>(size)
                                      : stride == 32 ? tile_function<32>(size)
                                                     : tile_function<0>(size);
        function(out + from * out_step, out_step, first + from * first_step, first_step, numbers + from * stride,
                 stride, vectors, terms);
    }
}

}  // namespace native
