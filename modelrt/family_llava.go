package modelrt

// LLaVA, LLaVA-Med, and chatxray-base: a vision graph of one size, an adapter, and the image's embeddings in the place of a sentinel.
// Reference of testdata/families/llava: transformers' LlavaForConditionalGeneration.
func init() {
	registerFamily("llava", family{
		splices: []string{spliceSentinel, splicePads}, positions: positionsRope, mask: maskCausal, input: inputImage,
	})
}
