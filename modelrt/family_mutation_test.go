package modelrt

import (
	"context"
	"slices"
	"testing"
)

// mutation is one thing done wrong; parity must break.
type mutation struct {
	name  string
	spoil func(m *Model, g *familyGolden) (mend func())
}

// layMutation spoils how prompts lie.
func layMutation(name string, spoil func(p *placing)) mutation {
	return mutation{name, func(m *Model, _ *familyGolden) func() {
		was := m.prompt.family
		m.prompt.family.lay = func(p *placing, images []raster, first []int32) {
			if was.lay != nil {
				was.lay(p, images, first)
			}
			spoil(p)
		}
		return func() { m.prompt.family = was }
	}}
}

func familyMutations(t *testing.T, m *Model, g familyGolden) {
	list := []mutation{
		layMutation("positions", func(p *placing) { // what follows the first few places is elsewhere
			for i := 3; i < len(p.position); i++ {
				for c := range p.position[i] {
					p.position[i][c] += 7
				}
			}
		}),
		layMutation("mask", func(p *placing) { // some see too much, others too little
			for i := range p.upto {
				if int(p.upto[i]) == i+1 && i+2 < len(p.upto) {
					p.upto[i] = int32(len(p.upto)) - 1
				} else {
					p.upto[i] = int32(i + 1)
				}
			}
		}),
	}
	if or(m.bundle.Manifest.Decoder.Mask, maskCausal) != maskCausal {
		list = append(list, layMutation("causal mask", func(p *placing) {
			for i := range p.upto {
				p.upto[i] = int32(i + 1)
			}
		}))
	}
	if or(m.bundle.Manifest.Decoder.Positions, positionsRope) != positionsRope {
		list = append(list, layMutation("plain positions", func(p *placing) {
			for i := range p.position {
				at := int32(i)
				p.position[i] = [3]int32{at, at, at}
			}
			p.step = [3]int32{1, 1, 1}
		}))
	}
	if m.bundle.Manifest.Decoder.Positions == positionsAbsolute {
		list = list[:len(list)-1] // learned positions are plain ones
	}
	if r := m.decoder.(*flat).rotaries; len(r) == 2 {
		list = append(list, mutation{"rope bases", func(*Model, *familyGolden) func() {
			r[0], r[1] = r[1], r[0]
			return func() { r[0], r[1] = r[1], r[0] }
		}})
	}
	if m.bundle.Manifest.sighted() {
		list = append(list, mutation{"another image", func(_ *Model, g *familyGolden) func() {
			g.Images = slices.Clone(g.Images)
			a, b := &g.Images[0], g.Images[1]
			a.Pictures = b.Pictures
			return func() {}
		}}, mutation{"interpolation", func(m *Model, _ *familyGolden) func() {
			was := m.pre
			p := was.Spec()
			p.Interpolation = "bilinear"
			if was.Spec().Interpolation == p.Interpolation {
				p.Interpolation = "bicubic"
			}
			m.pre = must(NewPreprocessor(p))
			return func() { m.pre = was }
		}})
	}
	for _, x := range list {
		t.Run(x.name, func(t *testing.T) {
			spoiled := g
			mend := x.spoil(m, &spoiled)
			defer mend()
			r, err := runFamily(context.Background(), m, spoiled, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, logits, _, tokens := r.apart(g, 0)
			t.Logf("first logits differ by %.1e, other tokens: %v", logits, tokens)
			if logits < 1e-3 || !tokens {
				t.Errorf("parity does not see it: logits differ by %g, other tokens %v", logits, tokens)
			}
		})
	}
}
