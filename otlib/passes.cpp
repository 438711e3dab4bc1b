// Passes over a tile of float32 scores, row by row while the row is in the cache: see _passes.py.
#include <cfloat>
#include <cstdint>
#include <cstring>

// 2^t for -126 <= t < 128 to 1e-7: 2^(t - round(t)) by a polynomial, round(t) into its exponent.
static inline float exp2_of(float t) {
  float shifted = t + 12582912.0f, rest = t - (shifted - 12582912.0f);  // 1.5 * 2^23 rounds
  float power = 1.5353362e-4f;
  power = power * rest + 1.3398874e-3f;
  power = power * rest + 9.6184370e-3f;
  power = power * rest + 5.5503324e-2f;
  power = power * rest + 2.4022648e-1f;
  power = power * rest + 6.9314720e-1f;
  power = power * rest + 1.0f;
  int32_t whole, bits;
  std::memcpy(&whole, &shifted, 4);
  std::memcpy(&bits, &power, 4);
  bits += static_cast<uint32_t>(whole) << 23;
  std::memcpy(&power, &bits, 4);
  return power;
}

static inline float highest(const float* row, int64_t columns, float top) {
#pragma omp simd reduction(max : top)
  for (int64_t j = 0; j < columns; j++) top = row[j] > top ? row[j] : top;
  return top;
}

extern "C" {

// Scores become 2^(score - top), at least 2^least; top, mass and fade as `_passes.weigh` says.
void weigh(float* scores, int64_t rows, int64_t columns, float least, float* top, float* mass,
           float* fade, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < rows; i++) {
    float* row = scores + i * columns;
    float high = highest(row, columns, top[i]), sum = 0;
    float shift = high < -FLT_MAX ? -FLT_MAX : high;  // -inf - -inf would be NaN
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < columns; j++) {
      float below = row[j] - shift;
      row[j] = exp2_of(below < least ? least : below);
      sum += row[j];
    }
    float before = top[i] - shift;
    fade[i] = before < -126 ? 0 : exp2_of(before);
    mass[i] = mass[i] * fade[i] + sum;
    top[i] = high;
  }
}

// Where a row has a score above top, top becomes the highest and at the first column that has it.
void best(const float* scores, int64_t rows, int64_t columns, int64_t first, float* top,
          int64_t* at, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < rows; i++) {
    const float* row = scores + i * columns;
    float high = highest(row, columns, top[i]);
    if (!(high > top[i])) continue;
    int64_t j = 0;
    for (; j + 64 < columns; j += 64) {
      int here = 0;
#pragma omp simd reduction(| : here)
      for (int64_t k = j; k < j + 64; k++) here |= row[k] == high;
      if (here) break;
    }
    while (row[j] != high) j++;
    top[i] = high;
    at[i] = first + j;
  }
}

// How many scores of each row are at most `reach` below its highest; counts (rows,).
void count(const float* scores, int64_t rows, int64_t columns, float reach, int64_t* counts, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < rows; i++) {
    const float* row = scores + i * columns;
    float bar = highest(row, columns, -FLT_MAX) - reach;
    int found = 0;
#pragma omp simd reduction(+ : found)
    for (int64_t j = 0; j < columns; j++) found += row[j] >= bar;
    counts[i] = found;
  }
}

// Where they lie: row, column and how far below, those of row i from ends[i] - counts[i] on.
void list(const float* scores, int64_t rows, int64_t columns, float reach, const int64_t* ends,
          int64_t* at_row, int64_t* at_column, float* below, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < rows; i++) {
    const float* row = scores + i * columns;
    float high = highest(row, columns, -FLT_MAX), bar = high - reach;
    int64_t k = i ? ends[i - 1] : 0;
    for (int64_t j = 0; j < columns && k < ends[i];) {
      int64_t end = j + 16 < columns ? j + 16 : columns;
      if (highest(row + j, end - j, -FLT_MAX) < bar) {
        j = end;
        continue;
      }
      for (; j < end && k < ends[i]; j++) {  // a branch a score would be guessed wrong
        at_row[k] = i;
        at_column[k] = j;
        below[k] = high - row[j];
        k += row[j] >= bar;
      }
    }
  }
}

// arriving_j += sum_i share_i weights_ij, a column by one thread, whatever their number.
void spread(const float* weights, int64_t rows, int64_t columns, const float* share, float* arriving,
            int threads) {
  const int64_t wide = 1024;  // these sums stay in the cache
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t start = 0; start < columns; start += wide) {
    int64_t end = start + wide < columns ? start + wide : columns;
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) {
      const float* row = weights + i * columns;
      float a = share[i], b = share[i + 1], c = share[i + 2], d = share[i + 3];
#pragma omp simd
      for (int64_t j = start; j < end; j++)
        arriving[j] += (a * row[j] + b * row[j + columns]) +
                       (c * row[j + 2 * columns] + d * row[j + 3 * columns]);
    }
    for (; i < rows; i++) {
      const float* row = weights + i * columns;
#pragma omp simd
      for (int64_t j = start; j < end; j++) arriving[j] += share[i] * row[j];
    }
  }
}
}
