package modelrt

import (
	"context"
	"fmt"
	"image"
	"image/color"
	_ "image/jpeg" // the films of the data pack
	"os"
	"slices"
	"strings"
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/label"
)

// BenchmarkRounding tells what activations of 8 bits cost in reports of the films that FILMS, a list of JPEG files, names: how often the likeliest next
// token is the exact form's after the same text, how many reports are the same, and the F1 of the labels that they speak of. It also tells what drafts looked up in prompt and text so far would
// save: a draft is what followed the last place where the last two or three tokens stood.
func BenchmarkRounding(b *testing.B) {
	list, err := os.ReadFile(os.Getenv("FILMS"))
	if err != nil {
		b.Fatal(err)
	}
	films := strings.Fields(string(list))
	exact := openBaseWith(b, func(o *Options) { o.Form, o.Label = "q4", label.Report })
	eight := openBaseWith(b, func(o *Options) { o.Form, o.EightBits = "q4", true; o.Label = label.Report })
	ctx, hidden, vocab := context.Background(), exact.bundle.Manifest.Decoder.Hidden, exact.bundle.Manifest.Decoder.Vocab
	var tokens, agree, same, both, either int
	var texts [][]int32
	var begins []int
	for _, film := range films {
		img := filmOf(b, film)
		one, two := must(exact.write(ctx, must(exact.see(ctx, img, classRoutine)), classRoutine)), must(eight.write(ctx, must(eight.see(ctx, img, classRoutine)), classRoutine))
		if slices.Equal(one.tokens, two.tokens) {
			same++
		}
		first, second := findingsOf(b, exact, one), findingsOf(b, eight, two)
		for i := range first {
			switch {
			case first[i].Presence != pipeline.Present && second[i].Presence != pipeline.Present:
			case first[i].Presence == second[i].Presence:
				both++
			default:
				either++
			}
		}
		said := must(eight.composeFor(ctx, eight.task.template, []*sight{must(eight.see(ctx, img, classRoutine))}))
		texts = append(texts, append(slices.Clone(said.places.ids), one.tokens...))
		begins = append(begins, len(said.places.ids))
		n, rows := len(said.places.ids), make([]float32, len(one.tokens)*hidden)
		c := must(begin(ctx))
		if err := eight.decoder.lookup(c, one.tokens, rows); err != nil {
			b.Fatal(err)
		}
		var feed batch
		feed.add(0, 0, said.embeds, n, said.places)
		feed.want()
		for i := range len(one.tokens) - 1 {
			feed.add(0, n+i, rows[i*hidden:][:hidden], 1, said.places)
			feed.want()
		}
		if err := eight.decoder.run(c, &feed); err != nil {
			b.Fatal(err)
		}
		for i, want := range one.tokens {
			if id, _, err := greedy(feed.logits[i*vocab:][:vocab]); err == nil && id == want {
				agree++
			}
		}
		tokens += len(one.tokens)
		c.end()
	}
	fmt.Printf("\n%d films, %d tokens: the likeliest token is the exact form's at %.2f %%; %d of %d reports are the same\n", len(films), tokens, 100*float64(agree)/float64(tokens), same, len(films))
	fmt.Printf("labels F1 of the reports against each other: %.3f (%d in both, %d in one)\n", 2*float64(both)/float64(2*both+either), both, either)
	for _, most := range []int{2, 4, 8} {
		steps, fed := 0, 0
		for i, text := range texts {
			s, f := lookedUp(text, begins[i], most)
			steps, fed = steps+s, fed+f
		}
		fmt.Printf("drafts of up to %d tokens: %.2f tokens a step, %.2f fed a step\n", most, float64(tokens)/float64(steps), float64(fed)/float64(steps))
	}
}

func findingsOf(b *testing.B, m *Model, a *answer) []pipeline.Finding {
	written, err := m.parse(a)
	if err != nil {
		b.Fatal(err)
	}
	texts := make([]string, len(written.sentences))
	for i, s := range written.sentences {
		texts[i] = s.Text
	}
	return m.labelled(texts)
}

// lookedUp counts the steps that writing text from place `begin` takes with looked-up drafts, and the tokens fed in them.
func lookedUp(text []int32, begin, most int) (steps, fed int) {
	for at := begin; at < len(text); steps++ {
		var draft []int32
		for n := 3; n >= 2 && draft == nil; n-- {
			for from := at - n - 1; from >= 0 && at >= n; from-- {
				if slices.Equal(text[from:from+n], text[at-n:at]) {
					draft = text[from+n : min(from+n+most, at)]
					break
				}
			}
		}
		right := 0
		for right < len(draft) && at+right < len(text) && draft[right] == text[at+right] {
			right++
		}
		at, fed = at+right+1, fed+len(draft)+1
	}
	return steps, fed
}

func filmOf(b *testing.B, path string) *pipeline.Image {
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	img, _, err := image.Decode(f)
	if err != nil {
		b.Fatal(path, err)
	}
	size := img.Bounds()
	gray := make([]uint8, 0, size.Dx()*size.Dy())
	for y := size.Min.Y; y < size.Max.Y; y++ {
		for x := size.Min.X; x < size.Max.X; x++ {
			gray = append(gray, color.GrayModel.Convert(img.At(x, y)).(color.Gray).Y)
		}
	}
	return picture(gray, size.Dy(), size.Dx())
}
