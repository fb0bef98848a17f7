// The memory of L-BFGS.

#pragma once

#include <algorithm>
#include <cstring>

#include "vectors.hpp"

namespace native {

// The latest pairs s = x' - x, y = g' - g, and the direction -H g that they give (Byrd, Nocedal and Schnabel
// 1994, theorem 2.2): with R the upper triangle of S Y^T and D its diagonal, oldest pair first,
//     R a = -S g,  R^T c = D a + k (Y g + Y Y^T a),  direction = -k (g + Y^T a) + S^T c,  k = s.y / y.y.
// Pairs lie in slots, the newest in place of the oldest; R has a zero wherever the row is newer than the column,
// so that sums may run over all slots in any order.
class Memory {
public:
    static constexpr Index SIZE = 100, ROOM = 104;  // whole vectors of doubles

    explicit Memory(Index variables)
        : variables_(variables), pairs_(2 * SIZE * variables), upper_(ROOM * ROOM), products_(ROOM * ROOM),
          s_g_(ROOM), y_g_(ROOM), s_y_(ROOM), y_y_(ROOM), a_(ROOM), c_(ROOM) {}

    void clear() {
        count_ = next_ = 0;
        scale_ = 1;
        upper_.clear();
        products_.clear();
    }

    // Take in the last step and change, and find the direction from g.
    void direction(const Floats& step, const Floats& change, const Floats& g, Floats& direction) {
        const float curvature = dot(step, change);
        const bool kept = curvature > 1e-10f;
        if (kept) insert(step, change);
        multiply(g, change);
        if (kept) extend(curvature, dot(change, change));
        solve();
        combine(g, direction);
    }

    float dot(const float* u, const float* v) const {
        Vector sums[2] = {};
        for (Index i = 0; i < variables_; i += VECTOR) sums[i / VECTOR % 2] += load(u + i) * load(v + i);
        return sum(sums[0] + sums[1]);
    }

private:
    float* s(Index slot) { return pairs_ + 2 * slot * variables_; }
    float* y(Index slot) { return s(slot) + variables_; }
    Index newest() const { return (next_ + SIZE - 1) % SIZE; }
    Index slot(Index age) const { return count_ < SIZE ? age : (next_ + age) % SIZE; }  // from the oldest

    void insert(const Floats& step, const Floats& change) {
        std::memcpy(s(next_), step, variables_ * sizeof(float));
        std::memcpy(y(next_), change, variables_ * sizeof(float));
        next_ = (next_ + 1) % SIZE;
        count_ = std::min(count_ + 1, SIZE);
    }

    // S g, Y g, S y and Y y for the newest y, in one pass over the pairs.
    void multiply(const float* g, const float* change) {
        Index slot = 0;
        for (; slot + 2 <= count_; slot += 2) multiply_pairs<2>(slot, g, change);
        for (; slot < count_; ++slot) multiply_pairs<1>(slot, g, change);
    }

    template <Index PAIRS>
    void multiply_pairs(Index slot, const float* g, const float* change) {
        const float* rows = s(slot);
        Vector sums[4 * PAIRS] = {};
        for (Index i = 0; i < variables_; i += VECTOR) {
            const Vector to = load(g + i), by = load(change + i);
#pragma GCC unroll 2
            for (Index j = 0; j < PAIRS; ++j) {
                const Vector s = load(rows + 2 * j * variables_ + i), y = load(rows + (2 * j + 1) * variables_ + i);
                sums[4 * j] += s * to;
                sums[4 * j + 1] += y * to;
                sums[4 * j + 2] += s * by;
                sums[4 * j + 3] += y * by;
            }
        }
        for (Index j = 0; j < PAIRS; ++j) {
            s_g_[slot + j] = sum(sums[4 * j]);
            y_g_[slot + j] = sum(sums[4 * j + 1]);
            s_y_[slot + j] = sum(sums[4 * j + 2]);
            y_y_[slot + j] = sum(sums[4 * j + 3]);
        }
    }

    void extend(double curvature, double length) {
        const Index slot = newest();
        for (Index other = 0; other < count_; ++other) {
            upper_[other * ROOM + slot] = 0;  // columns lie one after another
            upper_[slot * ROOM + other] = other == slot ? curvature : s_y_[other];
            products_[slot * ROOM + other] = products_[other * ROOM + slot] = y_y_[other];
        }
        upper_[slot * ROOM + slot] = curvature;
        products_[slot * ROOM + slot] = length;
        scale_ = curvature / length;
    }

    static void add_column(double* to, double factor, const double* column) {
        for (Index i = 0; i < ROOM; i += DOUBLES) {
            Doubles* sums = reinterpret_cast<Doubles*>(to + i);
            *sums += factor * *reinterpret_cast<const Doubles*>(column + i);
        }
    }

    void solve() {
        double *a = a_, *c = c_;
        double rest[ROOM] __attribute__((aligned(64)));
        for (Index i = 0; i < ROOM; ++i) rest[i] = i < count_ ? -s_g_[i] : 0, a[i] = c[i] = 0;
        for (Index age = count_; age-- > 0;) {
            const Index j = slot(age);
            a[j] = rest[j] / upper_[j * ROOM + j];
            add_column(rest, -a[j], upper_ + j * ROOM);
        }
        for (Index i = 0; i < ROOM; ++i) rest[i] = i < count_ ? y_g_[i] : 0;
        for (Index j = 0; j < count_; ++j) add_column(rest, a[j], products_ + j * ROOM);
        for (Index i = 0; i < count_; ++i) rest[i] = upper_[i * ROOM + i] * a[i] + scale_ * rest[i];
        for (Index age = 0; age < count_; ++age) {
            const Index i = slot(age);
            Doubles sums{};
            for (Index j = 0; j < ROOM; j += DOUBLES)
                sums += *reinterpret_cast<const Doubles*>(upper_ + i * ROOM + j) * *reinterpret_cast<Doubles*>(c + j);
            double before = 0;
            for (Index j = 0; j < DOUBLES; ++j) before += sums[j];
            c[i] = (rest[i] - before) / upper_[i * ROOM + i];
        }
    }

    // From the last slot to the first: what `multiply` read last is still in the cache.
    void combine(const float* g, float* direction) {
        const float scale = float(scale_);
        for (Index i = 0; i < variables_; i += VECTOR) store(direction + i, -scale * load(g + i));
        Index slot = count_;
        for (; slot >= 4; slot -= 4) add_pairs<4>(slot - 4, scale, direction);
        for (; slot >= 1; --slot) add_pairs<1>(slot - 1, scale, direction);
    }

    template <Index PAIRS>
    void add_pairs(Index slot, float scale, float* direction) {
        const float *s_rows = s(slot), *y_rows = y(slot);
        float by_s[PAIRS], by_y[PAIRS];
        for (Index j = 0; j < PAIRS; ++j) by_s[j] = float(c_[slot + j]), by_y[j] = -scale * float(a_[slot + j]);
        for (Index i = 0; i < variables_; i += VECTOR) {
            Vector total = load(direction + i);
#pragma GCC unroll 4
            for (Index j = 0; j < PAIRS; ++j)
                total += by_s[j] * load(s_rows + 2 * j * variables_ + i) + by_y[j] * load(y_rows + 2 * j * variables_ + i);
            store(direction + i, total);
        }
    }

    Index variables_, count_ = 0, next_ = 0;
    double scale_ = 1;
    Floats pairs_;
    Array<double> upper_, products_, s_g_, y_g_, s_y_, y_y_, a_, c_;
};

}  // namespace native
