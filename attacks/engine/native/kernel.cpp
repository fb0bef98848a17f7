// What the caller sees of the kernel (`lane.hpp`); see build.py for the signatures.

#include <new>

#include "lane.hpp"

using native::Index, native::Lane, native::Problem, native::Shape;

#pragma GCC visibility push(default)

extern "C" {

void* lane_create(const Problem* problem, const Shape* shapes, Index count) {
    try {
        return new Lane(*problem, shapes, count);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
void lane_destroy(void* lane) { delete static_cast<Lane*>(lane); }
void lane_load_layer(void* lane, Index index, const float* weight, const float* bias) {
    static_cast<Lane*>(lane)->load_layer(index, weight, bias);
}
void lane_load_target(void* lane, Index index, const float* weight, float weighted, const float* bias,
                      float bias_weighted) {
    static_cast<Lane*>(lane)->load_target(index, weight, weighted, bias, bias_weighted);
}
void lane_load_labels(void* lane, const float* labels) { static_cast<Lane*>(lane)->load_labels(labels); }
void lane_start(void* lane, const float* values) { static_cast<Lane*>(lane)->start(values); }
void lane_read(void* lane, float* values) { static_cast<Lane*>(lane)->read(values); }
void lane_read_gradient(void* lane, float* values) { static_cast<Lane*>(lane)->read_gradient(values); }
float lane_evaluate(void* lane) { return static_cast<Lane*>(lane)->evaluate(); }
Index lane_step(void* lane, double budget, float* began) { return static_cast<Lane*>(lane)->step(budget, began); }
}

#pragma GCC visibility pop
