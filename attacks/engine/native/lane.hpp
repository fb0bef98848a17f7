// Gradient matching of one target under L-BFGS, for chains of convolutions and linear layers with activations.
//
// A layer l turns h[l-1] into a[l] = W[l] * h[l-1] + b[l] and h[l] = s(a[l]), with h[0] the images x and a[L] the
// logits z. With d[l] = dL/da[l] for the training loss L(z, y), the gradient that a client would send is
//     G[l] = d[l] h[l-1]^T,  d[l-1] = e[l-1] s'(a[l-1]),  e[l-1] = W[l]^T d[l],
// and the objective D is a function of G. As G is the derivative of L in W, for V = dD/dG held fixed
//     dD/dx = d/dx <V, G(x)> = d/dt dL/dx at the weights W + t V, t = 0,
// the forward and the backward pass again, differentiated along V:
//     a_dot[l] = W[l] h_dot[l-1] + V[l] h[l-1],  h_dot[l] = s'(a[l]) a_dot[l],  h_dot[0] = 0,
//     e_dot[l-1] = W[l]^T d_dot[l] + V[l]^T d[l],
//     d_dot[l-1] = e_dot[l-1] s'(a[l-1]) + e[l-1] s''(a[l-1]) a_dot[l-1],
// and dD/dx = e_dot[0]. The same for the labels: dD/dy = d/dy (dL/dz . z_dot).
//
// Every product is one of `contract`: sums of a number times a vector of neighbouring channels. Activations
// lie with channels last, filled with zeros to whole vectors, inside a margin of zeros. The transposed
// convolution with stride s is one without a stride whose outputs are the s x s pixels of a cell side by side;
// a linear layer is a convolution whose kernel and stride are the whole image.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "layer.hpp"
#include "memory.hpp"

namespace native {

// What all targets of a lane share, as the caller describes it.
struct Problem {
    Index images, joint, sigmoid_loss, cosine;
};

class Lane {
public:
    Lane(const Problem& problem, const Shape* shapes, Index count)
        : problem_(problem), outputs_(shapes[count - 1].outputs),
          pixels_(problem.images * shapes[0].channels * shapes[0].rows * shapes[0].columns),
          used_(pixels_ + (problem.joint ? problem.images * outputs_ : 0)),
          variables_((used_ + 2 * VECTOR - 1) / (2 * VECTOR) * (2 * VECTOR)), labels_(problem.images * outputs_),
          values_(variables_), gradient_(variables_), before_(variables_), direction_(variables_), step_(variables_),
          change_(variables_), memory_(variables_) {
        layers_.reserve(count);
        for (Index i = 0; i < count; ++i) layers_.emplace_back(shapes[i], problem.images, i == 0);
    }

    void load_layer(Index index, const float* weight, const float* bias) {
        Layer& layer = layers_[index];
        from_rows(layer, weight, layer.weight);
        layer.transpose(layer.weight, layer.weight_back);
        layer.bias.clear();
        if (bias) std::copy_n(bias, layer.shape.outputs, static_cast<float*>(layer.bias));
    }

    void load_target(Index index, const float* weight, float weighted, const float* bias, float bias_weighted) {
        Layer& layer = layers_[index];
        layer.target.clear();
        layer.bias_target.clear();
        layer.weighted = weight ? weighted : 0;
        layer.bias_weighted = bias ? bias_weighted : 0;
        if (weight) from_rows(layer, weight, layer.target);
        if (bias) std::copy_n(bias, layer.shape.outputs, static_cast<float*>(layer.bias_target));
    }

    void load_labels(const float* labels) { std::copy_n(labels, labels_.size(), static_cast<float*>(labels_)); }

    // Begin a run at images n x C x H x W and label logits n x outputs.
    void start(const float* values) {
        values_.clear();
        for_each_variable([&](Index theirs, Index ours) { values_[ours] = values[theirs]; });
        memory_.clear();
        fresh_ = true;
    }

    void read(float* values) const {
        for_each_variable([&](Index theirs, Index ours) { values[theirs] = values_[ours]; });
    }
    void read_gradient(float* values) const {
        for_each_variable([&](Index theirs, Index ours) { values[theirs] = gradient_[ours]; });
    }

    float evaluate() {
        spread_images();
        if (problem_.joint) infer_labels();
        for (std::size_t i = 0; i < layers_.size(); ++i) forward(i);
        differentiate_loss();
        for (std::size_t i = layers_.size(); i-- > 0;) backward(i);
        const float total = match();
        for (std::size_t i = 0; i < layers_.size(); ++i) forward_dot(i);
        differentiate_loss_dot();
        for (std::size_t i = layers_.size(); i-- > 0;) backward_dot(i);
        gather_images();
        return total;
    }

    // One call of torch.optim.LBFGS.step with at most `budget` evaluations; `began` gets the first
    // objective. Returns the number of evaluations, negative if the last one was not finite.
    Index step(double budget, float* began) {
        float total = evaluate();
        *began = total;
        float slope = largest(gradient_);
        if (!finite(total, slope)) return -1;
        Index evaluations = 1;
        if (slope <= 1e-7f) return evaluations;
        for (Index moves = 1;; ++moves) {
            find_direction();
            if (memory_.dot(gradient_, direction_) > -1e-9f) return evaluations;
            move();
            if (moves == 20) return evaluations;
            const float previous = total, length = largest(step_);
            total = evaluate();
            slope = largest(gradient_);
            ++evaluations;
            if (!finite(total, slope)) return -evaluations;
            if (slope <= 1e-7f || double(evaluations) >= budget || length <= 1e-9f) return evaluations;
            if (std::fabs(total - previous) < 1e-9f) return evaluations;
        }
    }

private:
    static bool finite(float total, float slope) { return std::isfinite(total) && std::isfinite(slope); }

    // From outputs x C x kernel_y x kernel_x, torch's order, to ours.
    static void from_rows(const Layer& layer, const float* rows, Floats& to) {
        const Shape& s = layer.shape;
        const Index area = s.kernel_y * s.kernel_x;
        for (Index o = 0; o < s.outputs; ++o)
            for (Index c = 0; c < s.channels; ++c)
                for (Index k = 0; k < area; ++k)
                    to[(k * s.channels + c) * layer.wide + o] = rows[(o * s.channels + c) * area + k];
    }

    // Call with the place of every variable in torch's order and in ours, which has channels last.
    template <typename Action>
    void for_each_variable(Action action) const {
        const Shape& s = layers_[0].shape;
        const Index area = s.rows * s.columns;
        Index theirs = 0;
        for (Index image = 0; image < problem_.images; ++image)
            for (Index c = 0; c < s.channels; ++c)
                for (Index pixel = 0; pixel < area; ++pixel)
                    action(theirs++, (image * area + pixel) * s.channels + c);
        for (Index i = pixels_; i < used_; ++i) action(theirs++, i);
    }

    void spread_images() {
        Layer& layer = layers_[0];
        const Index row_size = layer.shape.columns * layer.shape.channels;
        const float* from = values_;
        for (Index image = 0; image < problem_.images; ++image)
            for (Index row = 0; row < layer.shape.rows; ++row, from += row_size)
                std::memcpy(layer.h + layer.input.at(image, row, 0), from, row_size * sizeof(float));
    }

    void gather_images() {
        const Layer& layer = layers_[0];
        const float* cells = layer.e_dot;
        float* to = gradient_;
        const Index run = layer.shape.stride_x * layer.shape.channels;
        for (Index image = 0; image < problem_.images; ++image)
            for (Index row = 0; row < layer.shape.rows; ++row) {
                Index left = layer.shape.columns * layer.shape.channels;
                for (Index column = 0; left > 0; column += layer.shape.stride_x, to += std::min(run, left), left -= run)
                    std::memcpy(to, cells + layer.in_cells(image, row, column), std::min(run, left) * sizeof(float));
            }
    }

    void infer_labels() {
        for (Index image = 0; image < problem_.images; ++image) {
            const float* logits = values_ + pixels_ + image * outputs_;
            float* labels = labels_ + image * outputs_;
            if (problem_.sigmoid_loss)
                for (Index k = 0; k < outputs_; ++k) labels[k] = logistic(logits[k]);
            else
                softmax(logits, labels);
        }
    }

    static float logistic(float a) { return 1.0f / (1.0f + std::exp(-a)); }

    void softmax(const float* logits, float* to) const {
        const float top = *std::max_element(logits, logits + outputs_);
        float total = 0;
        for (Index k = 0; k < outputs_; ++k) total += to[k] = std::exp(logits[k] - top);
        for (Index k = 0; k < outputs_; ++k) to[k] /= total;
    }

    // Call with every vector of the outputs of a layer that is not the last: where it is among a[l], in the next
    // layer's input, in the margins of d[l], and among the next layer's cells; and which channels it has.
    template <typename Action>
    void for_each_vector(std::size_t index, Action action) {
        Layer &layer = layers_[index], &next = layers_[index + 1];
        Index at = 0;
        for (Index image = 0; image < problem_.images; ++image)
            for (Index row = 0; row < layer.output.rows; ++row)
                for (Index column = 0; column < layer.output.columns; ++column)
                    for (Index block = 0; block < layer.wide; block += VECTOR, at += VECTOR)
                        action(at, next.input.at(image, row, column) + block,
                               layer.output.at(image, row, column) + block, next.in_cells(image, row, column) + block,
                               block);
    }

    static Vector masked(Vector v, const std::int32_t* mask) {
        Integers bits, kept;
        std::memcpy(&bits, &v, sizeof bits);
        std::memcpy(&kept, mask, sizeof kept);
        bits &= kept;
        std::memcpy(&v, &bits, sizeof v);
        return v;
    }

    void forward(std::size_t index) {
        Layer& layer = layers_[index];
        layer.apply(layer.h, layer.weight, layer.bias, 0, layer.a, problem_.images);
        if (index + 1 == layers_.size()) return;
        Layer& next = layers_[index + 1];
        for_each_vector(index, [&](Index at, Index input, Index, Index, Index) {
            store(next.h + input, activate(layer.shape.activation, load(layer.a + at)));
        });
    }

    void backward(std::size_t index) {
        Layer& layer = layers_[index];
        layer.differentiate(problem_.images);
        if (index == 0) return;
        layer.apply_back(layer.d, layer.weight_back, false, layer.e, problem_.images);
        Layer& below = layers_[index - 1];
        for_each_vector(index - 1, [&](Index, Index input, Index output, Index cell, Index block) {
            Vector first, second;
            slopes(below.shape.activation, load(layer.h + input), first, second);
            store(below.d + output, masked(load(layer.e + cell), below.channels + block) * first);
        });
    }

    void forward_dot(std::size_t index) {
        Layer& layer = layers_[index];
        layer.apply(layer.h, layer.change, layer.bias_change, 0, layer.a_dot, problem_.images);
        if (index > 0)
            layer.apply(layer.h_dot, layer.weight, layer.a_dot, layer.wide, layer.a_dot, problem_.images);
        if (index + 1 == layers_.size()) return;
        Layer& next = layers_[index + 1];
        for_each_vector(index, [&](Index at, Index input, Index, Index, Index) {
            Vector first, second;
            slopes(layer.shape.activation, load(next.h + input), first, second);
            store(next.h_dot + input, first * load(layer.a_dot + at));
        });
    }

    void backward_dot(std::size_t index) {
        Layer& layer = layers_[index];
        layer.transpose(layer.change, layer.change_back);
        layer.apply_back(layer.d_dot, layer.weight_back, false, layer.e_dot, problem_.images);
        layer.apply_back(layer.d, layer.change_back, true, layer.e_dot, problem_.images);
        if (index == 0) return;
        Layer& below = layers_[index - 1];
        for_each_vector(index - 1, [&](Index at, Index input, Index output, Index cell, Index block) {
            Vector first, second;
            slopes(below.shape.activation, load(layer.h + input), first, second);
            const Vector bent = load(layer.e + cell) * second * load(below.a_dot + at);
            const Vector total = load(layer.e_dot + cell) * first + bent;
            store(below.d_dot + output, masked(total, below.channels + block));
        });
    }

    // d[L] = dL/dz: (p sum(y) - y) / n for softmax cross-entropy with p = softmax(z), (sigmoid(z) - y) / (n outputs)
    // for binary cross-entropy.
    void differentiate_loss() {
        Layer& last = layers_.back();
        for (Index image = 0; image < problem_.images; ++image) {
            const float *logits = last.a + image * last.wide, *labels = labels_ + image * outputs_;
            float* d = last.d + last.output.at(image, 0, 0);
            if (problem_.sigmoid_loss) {
                for (Index k = 0; k < outputs_; ++k) d[k] = (logistic(logits[k]) - labels[k]) * share();
                continue;
            }
            softmax(logits, d);
            const float total = sum_of(labels);
            for (Index k = 0; k < outputs_; ++k) d[k] = (d[k] * total - labels[k]) * share();
        }
    }

    // d_dot[L] = d2L/dz2 z_dot, and the label logits' gradient from dD/dy = d/dy (dL/dz . z_dot).
    void differentiate_loss_dot() {
        Layer& last = layers_.back();
        std::vector<float>& p = scratch_;
        p.resize(2 * outputs_);
        float* to_labels = p.data() + outputs_;
        for (Index image = 0; image < problem_.images; ++image) {
            const float *logits = last.a + image * last.wide, *z = last.a_dot + image * last.wide;
            const float* labels = labels_ + image * outputs_;
            float* d = last.d_dot + last.output.at(image, 0, 0);
            float along = 0;
            if (problem_.sigmoid_loss) {
                for (Index k = 0; k < outputs_; ++k) {
                    p[k] = logistic(logits[k]);
                    d[k] = p[k] * (1 - p[k]) * z[k] * share();
                }
            } else {
                softmax(logits, p.data());
                for (Index k = 0; k < outputs_; ++k) along += p[k] * z[k];
                const float total = sum_of(labels);
                for (Index k = 0; k < outputs_; ++k) d[k] = p[k] * (z[k] - along) * total * share();
            }
            if (!problem_.joint) continue;
            float mean = 0;
            for (Index k = 0; k < outputs_; ++k) {
                to_labels[k] = (along - z[k]) * share();
                mean += labels[k] * to_labels[k];
            }
            float* gradient = gradient_ + pixels_ + image * outputs_;
            for (Index k = 0; k < outputs_; ++k)
                gradient[k] = labels[k] * (problem_.sigmoid_loss ? (1 - labels[k]) * to_labels[k] : to_labels[k] - mean);
        }
    }

    float share() const { return 1.0f / float(problem_.images * (problem_.sigmoid_loss ? outputs_ : 1)); }
    float sum_of(const float* labels) const {
        float total = 0;
        for (Index k = 0; k < outputs_; ++k) total += labels[k];
        return total;
    }

    // D, and V = dD/dG in the place of G. Squared distance: sum w (G - T)^2. Cosine: 1 - <G, T>_w / |G|_w |T|_w.
    float match() {
        double distance = 0, product = 0, length = 0, wanted = 0;
        for (Layer& layer : layers_) {
            const auto add = [&](Floats& g, const Floats& t, float weighted) {
                if (weighted == 0) return;
                Vector sums[4] = {};
                for (Index i = 0; i + VECTOR <= g.size(); i += VECTOR) {
                    const Vector here = load(g + i), there = load(t + i), apart = here - there;
                    sums[0] += apart * apart;
                    sums[1] += here * there;
                    sums[2] += here * here;
                    sums[3] += there * there;
                }
                distance += weighted * sum(sums[0]);
                product += weighted * sum(sums[1]);
                length += weighted * sum(sums[2]);
                wanted += weighted * sum(sums[3]);
            };
            add(layer.change, layer.target, layer.weighted);
            add(layer.bias_change, layer.bias_target, layer.bias_weighted);
        }
        const double tiny = 1e-30, both = std::sqrt((length + tiny) * (wanted + tiny));
        const double by_g = problem_.cosine ? product / (both * (length + tiny)) : 2;
        const double by_t = problem_.cosine ? -1 / both : -2;
        for (Layer& layer : layers_) {
            const auto turn = [&](Floats& g, const Floats& t, float weighted) {
                const float here = float(weighted * by_g), there = float(weighted * by_t);
                for (Index i = 0; i + VECTOR <= g.size(); i += VECTOR)
                    store(g + i, weighted == 0 ? Vector{} : here * load(g + i) + there * load(t + i));
            };
            turn(layer.change, layer.target, layer.weighted);
            turn(layer.bias_change, layer.bias_target, layer.bias_weighted);
        }
        return float(problem_.cosine ? 1 - product / both : distance);
    }

    // Not finite if any entry is not.
    float largest(const Floats& values) const {
        Vector top{}, spoilt{};
        for (Index i = 0; i < variables_; i += VECTOR) {
            const Vector v = load(values + i), size = v < 0.0f ? -v : v;
            top = size > top ? size : top;
            spoilt += v * 0.0f;
        }
        float result = 0;
        for (Index i = 0; i < VECTOR; ++i) result = std::max(result, top[i]);
        return result + sum(spoilt);
    }

    // The step is the direction; but the first of a run is -g / |g|_1 if that is shorter than -g.
    void find_direction() {
        const bool fresh = fresh_;
        float rate = 1;
        if (fresh) {
            double length = 0;
            for (Index i = 0; i < variables_; ++i) {
                length += std::fabs(gradient_[i]);
                direction_[i] = -gradient_[i];
            }
            rate = std::min(1.0f, float(1 / length));
        } else {
            for (Index i = 0; i < variables_; i += VECTOR) store(change_ + i, load(gradient_ + i) - load(before_ + i));
            memory_.direction(step_, change_, gradient_, direction_);
        }
        fresh_ = false;
        for (Index i = 0; i < variables_; i += VECTOR) {
            store(before_ + i, load(gradient_ + i));
            store(step_ + i, rate * load(direction_ + i));
        }
    }

    void move() {
        for (Index i = 0; i < variables_; i += VECTOR) store(values_ + i, load(values_ + i) + load(step_ + i));
    }

    Problem problem_;
    Index outputs_, pixels_, used_, variables_;
    std::vector<Layer> layers_;
    std::vector<float> scratch_;
    Floats labels_, values_, gradient_, before_, direction_, step_, change_;
    Memory memory_;
    bool fresh_ = true;
};

}  // namespace native
