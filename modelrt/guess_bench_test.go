package modelrt

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// BenchmarkGuesses measures what guessing saves with the default bundle in one form: reports, the forms filled in after them, and an answer that quotes. With and
// without take turns, and processor time is compared.
func BenchmarkGuesses(b *testing.B) {
	m := openBaseForm(b, cmp.Or(os.Getenv("CHATXRAY_FORM"), "q4"), false)
	ctx := context.Background()
	var ratio [2][]float64
	for i := range 5 {
		var took [2][2]time.Duration
		var text [2][2]string
		r := must(m.Read(ctx, shades(400+i)))
		for turn, wide := range []int{0, maxWide} {
			for _, e := range m.engine.all {
				e.wide = wide
			}
			seen := must(m.see(ctx, shades(400+i), classRoutine))
			began := cpu()
			a := must(m.write(ctx, seen, classRoutine))
			took[turn][0], text[turn][0] = cpu()-began, string(a.text)
			began = cpu()
			s, _, err := m.fill(ctx, seen, a, r)
			if err != nil {
				b.Fatal(err)
			}
			took[turn][1], text[turn][1] = cpu()-began, string(s.Report)
		}
		if text[0] != text[1] {
			b.Errorf("%q, with guesses %q", text[0], text[1])
		}
		for k := range ratio {
			ratio[k] = append(ratio[k], took[0][k].Seconds()/took[1][k].Seconds())
		}
	}
	for k, what := range []string{"reports", "forms"} {
		slices.Sort(ratio[k])
		fmt.Printf("%s: the processor time without guesses is %.2f times that with (median of 5, from %.2f to %.2f), form %s\n", what, middle(ratio[k]), ratio[k][0], ratio[k][4], m.Form())
	}
}

// cpu is the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
