package modelrt

// Gemma 3 and MedGemma: the embeddings of an image see each other in both directions, in layers that see a window too (which must not be shorter
// than an image). Local layers have a rope base of their own; embeddings of words are scaled in the embed graph, those of images are not.
//
// Reference of testdata/families/gemma3: transformers' Gemma3ForConditionalGeneration.
func init() {
	registerFamily("gemma3", family{
		splices: []string{splicePads, spliceSentinel}, positions: positionsRope, mask: maskImage, input: inputImage,
		lay: func(p *placing, _ []raster, first []int32) {
			p.runs(first, func(_, from, to int) {
				for i := from; i < to; i++ {
					p.upto[i] = int32(to)
				}
			})
		},
	})
}
