package modelrt

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chatxray/pipeline"
)

func TestCheckVersion(t *testing.T) {
	for version, good := range map[string]bool{
		"1.24.1": true, "1.30.0": true, "1.31.0": true, "1.23.2": false, "1.9": false, "2.0.0": false, "": false, "one": false, "1": false, "1.x.0": false,
	} {
		err := checkVersion(version)
		if good != (err == nil) || err != nil && !errors.Is(err, pipeline.ErrUnsupported) {
			t.Errorf("%q: %v", version, err)
		}
	}
}

// TestMain lets this program act as a process that starts ONNX Runtime from a path: a process can do that once.
func TestMain(m *testing.M) {
	if path := os.Getenv("CHATXRAY_TEST_START"); path != "" {
		r, err := Start(path, Device(os.Getenv("CHATXRAY_TEST_DEVICE")))
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(0)
		}
		fmt.Printf("version %s device %s fallback %q\n", r.Version(), r.Device(), r.Fallback())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func startElsewhere(t *testing.T, path string, device Device, more ...string) string {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(append(os.Environ(), "CHATXRAY_TEST_START="+path, "CHATXRAY_TEST_DEVICE="+string(device)), more...)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// ONNX Runtime's telemetry is off, whatever the environment says: it would keep an identity of the machine and what it means to send in the user's cache.
func TestStartTellsNobody(t *testing.T) {
	home := t.TempDir()
	if got := startElsewhere(t, library(t), CPU, "HOME="+home, "XDG_CACHE_HOME="+home, "ORT_DISABLE_TELEMETRY=0"); !strings.HasPrefix(got, "version ") {
		t.Fatal(got)
	}
	for _, left := range must(os.ReadDir(home)) {
		t.Errorf("ONNX Runtime left %s in the user's cache", left.Name())
	}
}

// stand-in compiles a shared library.
func standIn(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, "a.c", []byte(source))
	path := filepath.Join(dir, "libonnxruntime.so")
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", path, filepath.Join(dir, "a.c")).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v: %s", err, out)
	}
	return path
}

func TestStartRefuses(t *testing.T) {
	text := filepath.Join(t.TempDir(), "lib.so")
	put(t, filepath.Dir(text), "lib.so", []byte("no library"))
	for name, tt := range map[string]struct{ path, want string }{
		"no file":      {filepath.Join(t.TempDir(), "none.so"), "missing run-time part: ONNX Runtime does not load from"},
		"no library":   {text, "missing run-time part: ONNX Runtime does not load from"},
		"another one":  {standIn(t, "int x;"), "it is not ONNX Runtime"},
		"an older one": {standIn(t, oldRuntime), "unsupported: this is ONNX Runtime 1.17.3; versions 1.24 to 1.30 work"},
	} {
		t.Run(name, func(t *testing.T) {
			got := startElsewhere(t, tt.path, CPU)
			if !strings.HasPrefix(got, "error: ") || !strings.Contains(got, tt.want) || strings.Contains(got, "\n") {
				t.Errorf("%q", got)
			}
		})
	}
}

const oldRuntime = `
static const void *api(unsigned int v) { return 0; }
static const char *version(void) { return "1.17.3"; }
static const struct { const void *(*a)(unsigned int); const char *(*v)(void); } base = {api, version};
const void *OrtGetApiBase(void) { return &base; }
`

// The CPU build of ONNX Runtime has no CUDA provider: its own words are the reason.
func TestDevices(t *testing.T) {
	path := library(t)
	if got := startElsewhere(t, path, CPU); !strings.Contains(got, "device cpu") || !strings.Contains(got, `fallback ""`) {
		t.Errorf("cpu: %s", got)
	}
	auto, cuda := startElsewhere(t, path, Auto), startElsewhere(t, path, CUDA)
	if strings.Contains(auto, "device cuda") {
		if !strings.Contains(cuda, "device cuda") {
			t.Errorf("cuda: %s", cuda)
		}
		return
	}
	if !strings.Contains(auto, "device cpu") || strings.Contains(auto, `fallback ""`) {
		t.Errorf("auto: %s", auto)
	}
	if !strings.Contains(cuda, "error: unsupported: CUDA was demanded and does not load: ") {
		t.Errorf("cuda: %s", cuda)
	}
	t.Log(auto)
}

func TestStartTwice(t *testing.T) {
	r := runtimeFor(t)
	again, err := Start(library(t), CPU)
	if err != nil || again != r {
		t.Errorf("%v, %v", again, err)
	}
	if _, err := Start(library(t), CUDA); !errors.Is(err, pipeline.ErrConflict) {
		t.Errorf("%v", err)
	}
}
