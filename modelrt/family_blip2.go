package modelrt

// BLIP-2 with OPT: the image's embeddings, made by a Q-Former, stand before everything else, the token that begins a text included; positions
// are learned and looked up in the decoder graph, which knows OPT's offset.
//
// Reference of testdata/families/blip2: transformers' Blip2ForConditionalGeneration with OPT. The same class with Llama, its embeddings in
// the place of a sentinel, is MiniGPT-4's shape, which is of the family llava (testdata/families/minigpt4).
func init() {
	registerFamily("blip2", family{
		splices: []string{splicePrepend}, positions: positionsAbsolute, mask: maskCausal, input: inputImage,
	})
}
