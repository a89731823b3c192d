#ifndef CHATXRAY_LINEAR_H
#define CHATXRAY_LINEAR_H
#include <stdint.h>

// Forms of a packed matrix W [K, N]. Its columns are in panels of PANEL; a last panel is filled up with zeros. In a panel, row after row:
//   FORM_F32   PANEL floats for each k
//   FORM_Q4_1  for each 32 k: PANEL float16 scales d, PANEL float16 minima m, then for each 8 k PANEL little-endian words of eight halves
//              of a byte, the lowest the first; the value is d*q + m (ggml's Q4_1)
//   FORM_Q8_0  for each 32 k: PANEL float16 scales d, then PANEL signed bytes for each k; the value is d*q (ggml's Q8_0)
enum { FORM_F32, FORM_Q4_1, FORM_Q8_0, FORMS };
enum { PANEL = 32, BLOCK = 32 };

// packed_bytes is the size of a packed matrix, -1 where K or N do not fit the form.
int64_t packed_bytes(int form, int64_t k, int64_t n);

// linear computes y [M, N] = x [M, K] W (+ y where add is set), on the team. x and y are contiguous. w is a multiple of 4. On a processor with
// fused multiply-adds a value of FORM_F32 is one chain of them, over ascending k, from 0 or y. The other forms have one for each block, of x and
// the whole numbers q, from 0; what it comes to is multiplied by d and added, then m times the sum of the block's x, each by a fused multiply-add. So
// whatever m and the processor, a row has the same bits. It returns -1 where it has no memory.
int linear(float *y, const float *x, const void *w, int form, int64_t m, int64_t k, int64_t n, int add);

// linear8 is linear for FORM_Q4_1 and FORM_Q8_0 with the values of x rounded to 8 bits, each BLOCK of a row by itself, as ggml does: d is the largest
// magnitude / 127, and q the value · (127 / that magnitude), rounded to the nearest whole number, of two the even one. Sums over a block are integers;
// each block adds d_w · (d · sum of q_w q) and, in FORM_Q4_1, m_w · (d · sum of q), blocks ascending, each by a fused multiply-add: on every
// processor and whatever m, a row has the same bits. A row with a value that is not finite becomes NaN. It returns -1 where it has no memory.
int linear8(float *y, const float *x, const void *w, int form, int64_t m, int64_t k, int64_t n, int add);

// column writes column j of W, K floats.
void packed_column(float *out, const void *w, int form, int64_t k, int64_t j);

// pack_f32 packs columns of a matrix: in [K, N] row-major.
void pack_f32(float *out, const float *in, int64_t k, int64_t n);

#endif
