// Command soak reads many images in one process and watches its memory: after the first fifty readings it must not grow by more
// than 5 %.
//
//	go run ./bench/soak                                    1,000 readings of the default bundle
//	go run ./bench/soak -bundle modelrt/testdata/tiny -base modelrt/testdata/tiny.gguf     the tests' bundle, seconds
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"chatxray/modelrt"
	"chatxray/parts"
	"chatxray/pipeline"
	"chatxray/pipeline/label"
)

func main() {
	bundle := flag.String("bundle", filepath.Join("bundles", "chatxray-base"), "model bundle")
	library := flag.String("library", os.Getenv("CHATXRAY_ONNXRUNTIME"), "ONNX Runtime; empty: the run-time part")
	base := flag.String("base", os.Getenv("CHATXRAY_BASE"), "base model, a GGUF file; empty: the run-time part")
	readings := flag.Int("readings", 1000, "how many")
	side := flag.Int("side", 2048, "rows and columns of the images")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := soak(ctx, *bundle, *library, *base, *readings, *side); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func soak(ctx context.Context, bundle, library, base string, readings, side int) (err error) {
	if library == "" {
		if library, err = parts.Path("onnxruntime"); err != nil {
			return err
		}
	}
	rt, err := modelrt.Start(library, modelrt.Auto)
	if err != nil {
		return err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	m, err := modelrt.Open(ctx, rt, bundle, modelrt.Options{
		Base: func(_ context.Context, part string) (string, error) {
			if base != "" {
				return base, nil
			}
			return parts.Path(part)
		},
		Cache: filepath.Join(cache, "chatxray", "weights"),
		Label: label.Report,
		Now:   time.Now,
	})
	if err != nil {
		return err
	}
	defer m.Close()

	lut := make([]float32, 1<<16)
	for i := range lut {
		lut[i] = float32(i) / (1<<16 - 1)
	}
	img := &pipeline.Image{
		Instance: &pipeline.Instance{StudyInstanceUID: "2.25.1", SeriesInstanceUID: "2.25.2", SOPInstanceUID: "2.25.3"},
		Rows:     side, Columns: side, Pix16: make([]uint16, side*side), LUT: lut, Bottom: side, Right: side,
	}
	fmt.Printf("%s %s, ONNX Runtime %s on %s\n%8s %12s %12s %10s\n", m.Ref().Name, m.Ref().Version, rt.Version(), rt.Device(), "readings", "resident MB", "Go heap MB", "s/reading")
	var early, late float64
	refused, began := 0, time.Now()
	for i := 1; i <= readings; i++ {
		shade(img.Pix16, side, uint64(i))
		_, err := m.Read(ctx, img)
		if errors.Is(err, pipeline.ErrModel) { // a picture of nothing may get no report; that path must not leak either
			refused++
		} else if err != nil {
			return err
		}
		if i == 50 || i == readings || i%max(1, readings/10) == 0 {
			runtime.GC()
			if late, err = resident(); err != nil {
				return err
			}
			if i == 50 {
				early = late
			}
			var s runtime.MemStats
			runtime.ReadMemStats(&s)
			fmt.Printf("%8d %12.1f %12.1f %10.3f\n", i, late, float64(s.HeapInuse)/1e6, time.Since(began).Seconds()/float64(i))
		}
	}
	if early == 0 {
		return fmt.Errorf("at least 50 readings are needed, not %d", readings)
	}
	growth := 100 * (late - early) / early
	fmt.Printf("%d of %d readings gave no report; from reading 50 to %d memory grew by %+.2f %% (bar 5 %%)\n", refused, readings, readings, growth)
	if growth > 5 {
		return errors.New("memory grows")
	}
	return nil
}

// shade draws another soft blob for each seed.
func shade(pixels []uint16, side int, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	x0, y0, size := r.IntN(side), r.IntN(side), 1+r.IntN(side)
	for y := range side {
		for x := range side {
			d := (x-x0)*(x-x0) + (y-y0)*(y-y0)
			pixels[y*side+x] = uint16(max(0, 60000-60000*d/(size*size)) + (x^y)&1023)
		}
	}
}

// resident is the memory of this process in MB.
func resident() (float64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, errors.New("/proc/self/statm is not as expected")
	}
	pages, err := strconv.Atoi(fields[1])
	return float64(pages*os.Getpagesize()) / 1e6, err
}
