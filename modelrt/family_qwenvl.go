package modelrt

// Qwen-VL and ChatXRay: one size of image, a resampler with a fixed number of queries, whose embeddings overwrite pads between the marks of an
// image; boxes in the text (boxes.go).
//
// Reference of testdata/families/qwenvl: modeling_qwen.py and visual.py as published with Qwen-VL-Chat.
func init() {
	registerFamily("qwenvl", family{
		splices: []string{splicePads}, positions: positionsRope, mask: maskCausal, input: inputImage,
	})
}
