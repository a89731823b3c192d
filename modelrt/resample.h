#include <stdint.h>

// resample_line combines rows of an image and resamples the result along itself.
//
// The rows are row, row+1, ... row+rows-1 of a ring of slots rows, each stride floats long; their first width floats times weights
// are summed into acc[left ... left+width). Then out[o] is the sum of along[o×most+i] × acc[first[o]+i], i < count[o], for each of outputs.
// The caller answers for every index.
void resample_line(float *out, float *acc, int left, int width, const float *ring, int stride, int slots, int row, const float *weights,
	int rows, const int32_t *first, const int32_t *count, const float *along, int most, int outputs);

// shade_rows looks up rows of width words, the first at words and each columns after the one before, in lut, which has 65,536 entries. They
// become the rows row, row+1 ... of a ring.
void shade_rows(float *ring, int stride, int slots, int row, int rows, const uint16_t *words, int columns, int width, const float *lut);
