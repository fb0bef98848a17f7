// Activations and their derivatives.

#pragma once

#include <cstring>

#include "vectors.hpp"

namespace native {

enum class Activation : Index { none, sigmoid, tanh, relu };

// e^x: x = n log 2 + r with |r| <= log 2 / 2, Taylor's polynomial of degree 7 in r, times 2^n.
inline Vector exponential(Vector x) {
    const Vector low = fill(-87.0f), high = fill(88.0f);
    x = x < low ? low : x;
    x = x > high ? high : x;
    const Vector shift = fill(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer
    const Vector n = (x * 1.44269504088896341f + shift) - shift;
    const Vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vector p = fill(1.0f / 5040);
    for (float factor : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) p = p * r + factor;
    const Integers bits = (__builtin_convertvector(n, Integers) + 127) << 23;
    Vector scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

inline Vector activate(Activation kind, Vector a) {
    switch (kind) {
        case Activation::sigmoid: return 1.0f / (1.0f + exponential(-a));
        case Activation::tanh: return 1.0f - 2.0f / (1.0f + exponential(2.0f * a));
        case Activation::relu: return a < 0.0f ? Vector{} : a;
        default: return a;
    }
}

// s' and s'' from h = s(a).
inline void slopes(Activation kind, Vector h, Vector& first, Vector& second) {
    switch (kind) {
        case Activation::sigmoid:
            first = h * (1.0f - h);
            second = first * (1.0f - 2.0f * h);
            break;
        case Activation::tanh:
            first = 1.0f - h * h;
            second = -2.0f * h * first;
            break;
        case Activation::relu:
            first = h > 0.0f ? fill(1.0f) : Vector{};
            second = Vector{};
            break;
        default:
            first = fill(1.0f);
            second = Vector{};
    }
}

}  // namespace native
