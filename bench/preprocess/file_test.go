// Package preprocess measures the way from a DICOM file in memory to a model's tensor. run.sh runs it beside Python.
package preprocess

import (
	"context"
	"encoding/binary"
	"math"
	"os"
	"syscall"
	"testing"
	"time"

	"chatxray/modelrt"
	"chatxray/pipeline/dicom"
)

// spent returns the processor time of this process so far. It does not grow while other work has the processors.
func spent(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFileToTensor takes the file named by BENCH_FILE to the tensors that compare.py makes too, and reports the least processor
// time.
// Where BENCH_TENSORS names a folder, the tensors are written there for the comparison of values.
func BenchmarkFileToTensor(b *testing.B) {
	path := os.Getenv("BENCH_FILE")
	if path == "" {
		b.Skip("BENCH_FILE is not set: run bench/preprocess/run.sh")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name           string
		side, channels int
		kernel         string
	}{
		{"448x448x3-bicubic", 448, 3, "bicubic"},
		{"448x448x3-bilinear", 448, 3, "bilinear"},
		{"320x320x1-bicubic", 320, 1, "bicubic"},
	} {
		b.Run(c.name, func(b *testing.B) {
			spec := modelrt.Preprocess{Width: c.side, Height: c.side, Channels: c.channels, Fit: "squash", Interpolation: c.kernel, VOI: "default"}
			for range c.channels {
				spec.Mean, spec.Std = append(spec.Mean, 0.5), append(spec.Std, 0.25)
			}
			pre, err := modelrt.NewPreprocessor(spec)
			if err != nil {
				b.Fatal(err)
			}
			tensor := make([]float32, c.channels*c.side*c.side)
			best := time.Duration(math.MaxInt64)
			b.ReportAllocs()
			for b.Loop() {
				start := spent(b)
				in, err := dicom.Peek(data)
				if err != nil {
					b.Fatal(err)
				}
				m, err := dicom.Decode(context.Background(), in, 0)
				if err != nil {
					b.Fatal(err)
				}
				if err := pre.Into(tensor, m); err != nil {
					b.Fatal(err)
				}
				best = min(best, spent(b)-start)
			}
			b.ReportMetric(float64(best.Microseconds())/1000, "best-ms")
			if folder := os.Getenv("BENCH_TENSORS"); folder != "" {
				raw := make([]byte, 0, 4*len(tensor))
				for _, v := range tensor {
					raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
				}
				if err := os.WriteFile(folder+"/"+c.name, raw, 0o644); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
