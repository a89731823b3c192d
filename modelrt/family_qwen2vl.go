package modelrt

// Qwen2-VL and Qwen2.5-VL: images of any size as patches, Merge×Merge of them one embedding; positions are three numbers (M-RoPE). A window
// of the vision graph, where the manifest says vision.window, is so many embeddings each way, from the top left corner.
//
// Reference of testdata/families/qwen2vl and qwen25vl: transformers' Qwen2VLForConditionalGeneration and Qwen2_5_VLForConditionalGeneration.
func init() {
	registerFamily("qwen2vl", family{
		splices: []string{splicePads, spliceSentinel}, positions: positionsMrope, mask: maskCausal, input: inputPatches,
		lay: layMrope, patches: mergedPatches,
	})
}

// layMrope: all embeddings of an image are at one time, at their rows and columns from there; what follows begins behind the largest of these.
func layMrope(p *placing, images []raster, first []int32) {
	next, image := int32(0), -1
	for i, e := range p.image {
		if e < 0 {
			p.position[i] = [3]int32{next, next, next}
			next++
			continue
		}
		if image+1 < len(first) && e == first[image+1] {
			image++
		}
		n, columns := e-first[image], int32(images[image].columns)
		p.position[i] = [3]int32{next, next + n/columns, next + n%columns}
		if int(n) == images[image].count()-1 {
			next += int32(max(images[image].rows, images[image].columns))
		}
	}
}

// mergedPatches orders patches so that those of an embedding follow each other. A patch is [channels, frames, rows, columns], the picture in each
// frame.
func mergedPatches(m *Manifest, pixels []float32, width, height int) *patches {
	p := m.Preprocess
	side, merge := p.Patch, max(p.Merge, 1)
	unit := p.unit()
	r := raster{height / unit, width / unit}
	frames := max(m.Vision.PatchDim/(p.Channels*side*side), 1)
	out := &patches{grid: r, values: make([]float32, 0, r.count()*merge*merge*m.Vision.PatchDim)}
	across := 1
	if m.Vision.Window > 0 {
		across = (r.columns + m.Vision.Window - 1) / m.Vision.Window
	}
	for e := range r.count() {
		for i := range merge * merge {
			row, column := e/r.columns*merge+i/merge, e%r.columns*merge+i%merge
			for c := range p.Channels {
				for range frames {
					for y := range side {
						from := (c*height+row*side+y)*width + column*side
						out.values = append(out.values, pixels[from:from+side]...)
					}
				}
			}
			out.at = append(out.at, int64(row), int64(column))
			if w := m.Vision.Window; w > 0 {
				out.window = append(out.window, int64(e/r.columns/w*across+e%r.columns/w))
			}
		}
	}
	return out
}
