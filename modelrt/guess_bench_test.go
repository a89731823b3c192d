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

// BenchmarkGuesses measures what guessing saves in the forms that the default bundle fills in after its reports. With and
// without take turns, and processor time is compared.
func BenchmarkGuesses(b *testing.B) {
	m := openBaseForm(b, cmp.Or(os.Getenv("CHATXRAY_FORM"), "q4"), false)
	ctx := context.Background()
	var ratio []float64
	for i := range 7 {
		seen := must(m.see(ctx, shades(400+i), classRoutine))
		a, r := must(m.write(ctx, seen, classRoutine)), must(m.Read(ctx, shades(400+i)))
		var took [2]time.Duration
		var text [2]string
		for turn, wide := range []int{0, maxWide} {
			for _, e := range m.engine.all {
				e.wide = wide
			}
			began := cpu()
			s, _, err := m.fill(ctx, seen, a, r)
			if err != nil {
				b.Fatal(err)
			}
			took[turn], text[turn] = cpu()-began, string(s.Report)
		}
		if text[0] != text[1] {
			b.Errorf("%q, with guesses %q", text[0], text[1])
		}
		ratio = append(ratio, took[0].Seconds()/took[1].Seconds())
	}
	slices.Sort(ratio)
	fmt.Printf("forms, %s: processor time without guesses %.2f times that with (median of 7, from %.2f to %.2f)\n", m.Form(), middle(ratio), ratio[0], ratio[6])
}

// cpu is the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
