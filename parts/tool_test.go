package parts

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMissingTool(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("CHATXRAY_PARTS", t.TempDir())
	t.Setenv("CHATXRAY_PARTS_FROM", "")
	for name, says := range map[string]string{"dcmjs-codecs": "npm is not in PATH", "onnxruntime": "neither python3 nor pip is in PATH"} {
		_, err := Fetch(t.Context(), name, nil)
		if !errors.Is(err, ErrTool) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "CHATXRAY_PARTS_FROM") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPythonWithoutPip(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "python3"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	t.Setenv("CHATXRAY_PARTS", t.TempDir())
	_, err := Fetch(t.Context(), "onnxruntime", nil)
	if !errors.Is(err, ErrTool) || !strings.Contains(err.Error(), "has no pip") {
		t.Errorf("error %v", err)
	}
}

func TestToolErrors(t *testing.T) {
	p := Part{Name: "lib", Version: "1", Kind: "pip"}
	b := Build{File: "lib.whl", Size: 10e6}
	for _, c := range []struct {
		said string
		want error
		says string
	}{
		{"WARNING: Retrying ... after connection broken by 'NewConnectionError(...)'\nERROR: Could not find a version", ErrTool, "reaches no package registry"},
		{"npm error code ENOTFOUND\nnpm error network request failed", ErrTool, "reaches no package registry"},
		{"ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", ErrFull, "20.0 MB in /cache"},
		{"noise\nERROR: No matching distribution found for lib==1\n\n", ErrTool, "No matching distribution"},
		{"npm error code E404\nnpm error 404 Not Found - lib@1\nnpm error 404 more", ErrTool, "404 Not Found - lib@1"},
		{"", ErrTool, "nothing"},
	} {
		err := toolError(p, b, "/cache", c.said)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v", c.said, err)
		}
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	s := &tail{keep: 10}
	for _, w := range []string{"0123456", "789abc", strings.Repeat("x", 30) + "the end"} {
		if n, err := s.Write([]byte(w)); n != len(w) || err != nil {
			t.Fatal(n, err)
		}
		if s.buf.Len() > s.keep {
			t.Fatalf("keeps %d bytes", s.buf.Len())
		}
	}
	if s.String() != "xxxthe end" {
		t.Errorf("kept %q", s.String())
	}
}

// The real thing: npm brings the codec package by its name, and what is installed is what is pinned.
func TestFetchWithNpm(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("npm is not installed: the real fetch of the codec part was not tried")
	}
	t.Setenv("CHATXRAY_PARTS", t.TempDir())
	t.Setenv("CHATXRAY_PARTS_FROM", "")
	var said bytes.Buffer
	file, err := Fetch(t.Context(), "dcmjs-codecs", &said)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(file); len(b) != 4117001 || !bytes.HasPrefix(b, []byte("\x00asm")) {
		t.Errorf("%s is not the WebAssembly module", file)
	}
	t.Log(said.String())
}

// A stopped fetch stops the package manager at once and leaves nothing.
func TestFetchIsStopped(t *testing.T) {
	bin, root := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "npm"), []byte("#!/bin/sh\nexec /bin/sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	t.Setenv("CHATXRAY_PARTS", root)
	t.Setenv("CHATXRAY_PARTS_FROM", "")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := Fetch(ctx, "dcmjs-codecs", nil)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, "dcmjs-codecs", "0.0.8", ".fetch-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A package manager that ends well without the package, or with another one, is not believed.
func TestToolBringsSomethingElse(t *testing.T) {
	for name, script := range map[string]string{"nothing": "exit 0", "other bytes": "echo hello > dcmjs-codecs-0.0.8.tgz"} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			if err := os.WriteFile(filepath.Join(bin, "npm"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", bin)
			t.Setenv("CHATXRAY_PARTS", t.TempDir())
			t.Setenv("CHATXRAY_PARTS_FROM", "")
			_, err := Fetch(t.Context(), "dcmjs-codecs", nil)
			if !errors.Is(err, ErrTool) && !errors.Is(err, ErrDamaged) {
				t.Errorf("error %v", err)
			}
		})
	}
}
