// A convolution with its weights, their gradient and all that passes through it.

#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "activations.hpp"
#include "contraction.hpp"
#include "vectors.hpp"

namespace native {

// n images of rows x columns pixels of `step` numbers, with margins of zeros before and behind.
struct Plane {
    Index rows, columns, step, before_y, before_x, row_step, image_step;
    Plane(Index rows, Index columns, Index step, Index before_y, Index behind_y, Index before_x, Index behind_x)
        : rows(rows), columns(columns), step(step), before_y(before_y), before_x(before_x),
          row_step((before_x + columns + behind_x) * step), image_step((before_y + rows + behind_y) * row_step) {}
    Index at(Index image, Index y, Index x) const {
        return image * image_step + (y + before_y) * row_step + (x + before_x) * step;
    }
};

// What a layer is, as the caller describes it; the order of fields is the caller's.
struct Shape {
    Index channels, rows, columns, outputs, kernel_y, kernel_x, stride_y, stride_x, padding_y, padding_x;
    Activation activation;
    Index out_rows() const { return (rows + 2 * padding_y - kernel_y) / stride_y + 1; }
    Index out_columns() const { return (columns + 2 * padding_x - kernel_x) / stride_x + 1; }
};

// Kernel positions along an axis as cells: position k reads pixel `phase` of the cell `cell` after the output's.
struct Axis {
    Index stride, lowest, cells, low, high, margin;
    Axis(Index size, Index outputs, Index kernel, Index stride, Index padding)
        : stride(stride), lowest(floor_div(-padding, stride)), cells((size + stride - 1) / stride) {
        const Index highest = floor_div(kernel - 1 - padding, stride);
        low = std::max<Index>(0, highest);
        high = std::max<Index>(0, cells - lowest - outputs);
        margin = highest - lowest + 1;
    }
    Index taps() const { return margin; }
};

struct Layer {
    Shape shape;
    Axis y, x;
    Index wide;           // outputs in whole vectors
    Index cell;           // numbers of a cell of the input, in whole vectors
    Plane input, output;  // of h[l-1], and of d[l]
    Terms forward, backward, gradient;
    std::vector<Index> runs;  // where the sums of the weights' gradient start, in the input
    Index run;                // how many sums each has
    Floats weight, bias, weight_back;          // W, b, and W^T with cells as outputs
    Floats change, bias_change, change_back;   // G, then V; the same for b; V^T
    Floats target, bias_target;
    float weighted = 0, bias_weighted = 0;     // how much the two tensors count
    std::vector<std::pair<Index, Index>> places;  // where the kernel's positions are in W and in W^T
    Floats h, h_dot;                           // h[l-1] and its derivative along V
    Floats a, a_dot;                           // a[l], in pixels without margins
    Floats d, d_dot;
    Floats e, e_dot;                           // e[l-1] in cells
    Array<std::int32_t> channels;              // of a pixel of a[l]: all bits if it is there, none if it fills up

    Layer(const Shape& s, Index images, bool first)
        : shape(s),
          y(s.rows, s.out_rows(), s.kernel_y, s.stride_y, s.padding_y),
          x(s.columns, s.out_columns(), s.kernel_x, s.stride_x, s.padding_x),
          wide(padded(s.outputs)),
          cell(padded(s.stride_y * s.stride_x * s.channels)),
          input(s.rows, s.columns, first ? s.channels : padded(s.channels), s.padding_y, s.padding_y, s.padding_x,
                s.padding_x),
          output(s.out_rows(), s.out_columns(), wide, y.low, y.high, x.low, x.high) {
        const Index kernels = s.kernel_y * s.kernel_x * s.channels;
        const Index pixels = images * s.out_rows() * s.out_columns();
        for (Floats* field : {&weight, &change, &target}) *field = Floats(kernels * wide + VECTOR);
        for (Floats* field : {&bias, &bias_change, &bias_target}) *field = Floats(wide);
        for (Floats* field : {&h, &h_dot}) *field = Floats(images * input.image_step);
        for (Floats* field : {&a, &a_dot}) *field = Floats(pixels * wide);
        for (Floats* field : {&d, &d_dot}) *field = Floats(images * output.image_step);
        for (Floats* field : {&e, &e_dot}) *field = Floats(images * y.cells * x.cells * cell);
        channels = Array<std::int32_t>(wide);
        std::fill_n(static_cast<std::int32_t*>(channels), s.outputs, -1);
        list_forward(images);
        list_backward();
    }

    // A row of the kernel is one run of numbers where pixels lie next to each other.
    void list_forward(Index images) {
        const bool dense = input.step == shape.channels;
        run = dense ? shape.kernel_x * shape.channels : shape.channels;
        forward = Terms{{}, {}, run, 1, wide};
        for (Index ky = 0; ky < shape.kernel_y; ++ky)
            for (Index kx = 0; kx < (dense ? 1 : shape.kernel_x); ++kx) {
                runs.push_back(ky * input.row_step + kx * input.step);
                forward.numbers.push_back(runs.back());
                forward.vectors.push_back((ky * shape.kernel_x + kx) * shape.channels * wide);
            }
        gradient = Terms{{}, {}, output.columns, shape.stride_x * input.step, wide};
        for (Index image = 0; image < images; ++image)
            for (Index row = 0; row < output.rows; ++row) {
                gradient.numbers.push_back(image * input.image_step + row * shape.stride_y * input.row_step);
                gradient.vectors.push_back(output.at(image, row, 0));
            }
    }

    // Output (Y - qy, X - qx) reads pixel (ry, rx) of cell (Y, X) by the kernel at (q stride + r + padding).
    void list_backward() {
        const Shape& s = shape;
        const Index taps = y.taps() * x.taps();
        backward = Terms{{}, {}, s.outputs, 1, cell};
        for (Floats* field : {&weight_back, &change_back}) *field = Floats(taps * s.outputs * cell);
        for (Index tap = 0; tap < taps; ++tap) {
            const Index qy = y.lowest + tap / x.taps(), qx = x.lowest + tap % x.taps();
            backward.numbers.push_back(-qy * output.row_step - qx * output.step);
            backward.vectors.push_back(tap * s.outputs * cell);
            for (Index ry = 0; ry < s.stride_y; ++ry)
                for (Index rx = 0; rx < s.stride_x; ++rx) {
                    const Index ky = qy * s.stride_y + ry + s.padding_y, kx = qx * s.stride_x + rx + s.padding_x;
                    if (ky < 0 || ky >= s.kernel_y || kx < 0 || kx >= s.kernel_x) continue;
                    places.emplace_back((ky * s.kernel_x + kx) * s.channels * wide,
                                        tap * s.outputs * cell + (ry * s.stride_x + rx) * s.channels);
                }
        }
    }

    void transpose(const Floats& from, Floats& to) {
        const Index outputs = shape.outputs, channels = shape.channels;
        for (const auto& [source, sink] : places) {
            Index o = 0;
            for (; o + 4 <= outputs; o += 4) {
                Index c = 0;
                for (; c + 4 <= channels; c += 4)
                    transpose_four(from + source + c * wide + o, wide, to + sink + o * cell + c, cell);
                for (; c < channels; ++c)
                    for (Index i = o; i < o + 4; ++i) to[sink + i * cell + c] = from[source + c * wide + i];
            }
            for (; o < outputs; ++o)
                for (Index c = 0; c < channels; ++c) to[sink + o * cell + c] = from[source + c * wide + o];
        }
    }

    // outputs += weights * inputs; `first` are biases, or the outputs so far.
    void apply(const Floats& inputs, const float* weights, const float* first, Index first_step, Floats& outputs,
               Index images) {
        for (Index image = 0; image < images; ++image)
            for (Index row = 0; row < output.rows; ++row)
                for (Index block = 0; block < wide; block += VECTOR) {
                    const Index at = (image * output.rows + row) * output.columns * wide + block;
                    const float* from = first_step ? first + at : first + block;
                    const Index start = image * input.image_step + row * shape.stride_y * input.row_step;
                    contract(output.columns, outputs + at, wide, from, first_step, inputs + start,
                             shape.stride_x * input.step, weights + block, forward);
                }
    }

    // cells = (+=) weights^T * deltas.
    void apply_back(const Floats& deltas, const float* weights, bool add, Floats& cells, Index images) {
        static const Vector nothing{};
        for (Index image = 0; image < images; ++image)
            for (Index row = 0; row < y.cells; ++row)
                for (Index block = 0; block < cell; block += VECTOR) {
                    float* out = cells + (image * y.cells + row) * x.cells * cell + block;
                    contract(x.cells, out, cell, add ? out : reinterpret_cast<const float*>(&nothing),
                             add ? cell : 0, deltas + output.at(image, row, 0), output.step, weights + block,
                             backward);
                }
    }

    // G = d h^T, and its sum over pixels for the bias.
    void differentiate(Index images) {
        static const Vector nothing{};
        for (Index block = 0; block < wide; block += VECTOR) {
            for (Index i = 0; i < Index(runs.size()); ++i)
                contract(run, change + i * run * wide + block, wide, reinterpret_cast<const float*>(&nothing), 0,
                         h + runs[i], 1, d + block, gradient);
            Vector total{};
            for (Index image = 0; image < images; ++image)
                for (Index row = 0; row < output.rows; ++row)
                    for (Index column = 0; column < output.columns; ++column)
                        total += load(d + output.at(image, row, column) + block);
            store(bias_change + block, total);
        }
    }

    // Where pixel (row, column) of the input is among the cells.
    Index in_cells(Index image, Index row, Index column) const {
        const Index place = (image * y.cells + row / shape.stride_y) * x.cells + column / shape.stride_x;
        return place * cell + (row % shape.stride_y * shape.stride_x + column % shape.stride_x) * shape.channels;
    }
};

}  // namespace native
