package modelrt

// Models of text alone, of Llama's shape. Reference of testdata/families/llama: transformers' LlamaForCausalLM.
func init() {
	registerFamily("llama", family{
		splices: []string{spliceSentinel}, positions: positionsRope, mask: maskCausal, input: inputNone,
	})
}
