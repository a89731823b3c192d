package modelrt

import "math"

// ChatGLM-6B and VisualGLM: everything before the last token of the prompt sees itself in both directions; a position is two numbers, that in
// the prompt and, from its last token on, that in the answer. The prompt ends in the mask that the answer stands for and the token that
// begins the answer.
//
// Reference of testdata/families/chatglm: modeling_chatglm.py as published with visualglm-6b.
func init() {
	registerFamily("chatglm", family{
		splices: []string{splicePads, spliceSentinel}, positions: positionsGLM, mask: maskPrefix, input: inputImage,
		lay: func(p *placing, _ []raster, _ []int32) {
			last := int32(len(p.ids) - 1)
			for i := range last {
				p.position[i], p.upto[i] = [3]int32{i}, last
			}
			p.position[last], p.step = [3]int32{last - 1, 1}, [3]int32{0, 1, 0}
		},
	})
}

// halved rounds to the 11 bits of a float16: the reference keeps the frequencies of its rotary positions so, in every precision.
func halved(v float64) float64 {
	fraction, exponent := math.Frexp(v)
	return math.Ldexp(math.RoundToEven(fraction*(1<<11))/(1<<11), exponent)
}
