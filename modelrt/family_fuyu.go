package modelrt

// Fuyu: no vision encoder. The patches of a picture, which keeps its aspect ratio, go through one product; the token prompt.row_end stands after
// each row of them. A patch is [rows, columns, channels].
//
// Reference of testdata/families/fuyu: transformers' FuyuForCausalLM.
func init() {
	registerFamily("fuyu", family{
		splices: []string{spliceRows}, positions: positionsRope, mask: maskCausal, input: inputPatches, patches: plainPatches,
	})
}

func plainPatches(m *Manifest, pixels []float32, width, height int) *patches {
	side, plane := m.Preprocess.Patch, width*height
	r := raster{height / side, width / side}
	out := &patches{grid: r, values: make([]float32, 0, m.Preprocess.Channels*plane)}
	for e := range r.count() {
		for i := range side * side {
			at := (e/r.columns*side+i/side)*width + e%r.columns*side + i%side
			for c := range m.Preprocess.Channels {
				out.values = append(out.values, pixels[c*plane+at])
			}
		}
	}
	return out
}
