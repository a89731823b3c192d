package modelrt

import (
	"context"
	"os"
	"testing"

	"chatxray/parts"
)

// gpuRuntime starts ONNX Runtime on CUDA. A process has one ONNX Runtime, so these tests have one of their own: bench/cuda/run.sh.
func gpuRuntime(t testing.TB) *Runtime {
	t.Helper()
	if os.Getenv("CHATXRAY_GPU") == "" {
		t.Skip("needs a GPU; bench/cuda/run.sh runs it where one is")
	}
	r, err := Start(gpuLibrary(t), CUDA)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func gpuLibrary(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("CHATXRAY_ONNXRUNTIME"); p != "" {
		return p
	}
	p, err := parts.Path("onnxruntime-gpu")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The forms of 16 bits on the GPU: the tiny report, as transformers writes it.
func TestGPUParity(t *testing.T) {
	r := gpuRuntime(t)
	t.Logf("%+v", FindCUDA(""))
	for name, tolerance := range halfTolerance {
		t.Run(name, func(t *testing.T) { halfParity(t, r, name, tolerance) })
	}
}

// Texts in all ways of feeding, on the GPU beside the CPU.
func TestGPUEqualsCPU(t *testing.T) {
	r := gpuRuntime(t)
	for form, oracle := range map[string]string{"half": "half", "brain": "standard"} {
		t.Run(form, func(t *testing.T) {
			tolerance := 0.02
			if form == "brain" {
				tolerance = 0.1
			}
			equalsPlain(t, r, tinyGQA(t, r, form, 5), tinyGQA(t, r.onCPU(), oracle, 5), tolerance, false)
		})
	}
}

// Memory of the GPU that is out refuses one request.
func TestGPUMemoryRunsOut(t *testing.T) { memoryRunsOut(t, gpuRuntime(t), "half", 256<<20) }

// A reading, from pixels to evidence, and one that is cancelled.
func TestGPURead(t *testing.T) {
	o := tinyOptions(t)
	m, err := Open(context.Background(), gpuRuntime(t), "testdata/tiny", o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Device() != CUDA || m.Form() != "half" {
		t.Errorf("%s on %s", m.Form(), m.Device())
	}
	got := must(m.Read(context.Background(), tinyValues(t).image()))
	if len(got.Sentences) != 4 || got.Sentences[0].Evidence.Drop < 1 {
		t.Errorf("%+v", got.Sentences)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.Read(ctx, tinyValues(t).image()); err == nil {
		t.Error("a cancelled reading came to its end")
	}
}
