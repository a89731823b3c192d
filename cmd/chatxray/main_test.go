package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"chatxray/config"
	"chatxray/pipeline"
)

func command(t *testing.T, stdin string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(stdin), &o, &e)
	return code, o.String(), e.String()
}

func TestEveryCommandHelps(t *testing.T) {
	k, err := kong.New(&cli{}, kong.Vars{"syntaxes": phantomSyntaxNames()})
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range k.Model.Leaves(true) {
		args := append(strings.Fields(leaf.FullPath())[1:], "--help")
		code, out, errs := command(t, "", args...)
		if code != 0 || !strings.Contains(out, "Usage: chatxray") || !strings.Contains(strings.Join(strings.Fields(out), " "), leaf.Help) {
			t.Errorf("%v: exit code %d\n%s%s", args, code, out, errs)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"version"}, 0, "chatxray"},
		{[]string{"--help"}, 0, "Exit codes"},
		{[]string{"reprot"}, exitUsage, "report"},
		{[]string{"phantom"}, exitUsage, "--out"},
		{[]string{"phantom", "--out", "x", "--view", "sideways"}, exitUsage, "PA"},
		{[]string{"phantom", "--out", filepath.Join(t.TempDir(), "x"), "--bits", "40"}, exitInvalid, "bits"},
		{[]string{"--version"}, 0, "chatxray"},
		{[]string{"check"}, exitUsage, "--config"},
		{[]string{"check", "file.yaml"}, exitUsage, `"chatxray check --help"`},
		{[]string{"archive", "rebuild", "folder"}, exitUsage, `"chatxray archive rebuild --help"`},
		{[]string{"send", "127.0.0.1:8080/dicom-web", "x"}, exitUsage, "http(s) URL"},
		{[]string{"check", "--config", "/nonexistent.yaml"}, exitConfig, "nonexistent.yaml"},
		{[]string{"bundles", "verify", "nothing"}, exitParts, "nothing"},
		{[]string{"preprocess", "--out", t.TempDir(), "--spec", "/nonexistent.json", "x"}, exitFailed, "nonexistent.json"},
	} {
		code, out, errs := command(t, "", tc.args...)
		if code != tc.code || !strings.Contains(out+errs, tc.says) {
			t.Errorf("%v: exit code %d, want %d, with %q:\n%s%s", tc.args, code, tc.code, tc.says, out, errs)
		}
	}
}

func TestCheck(t *testing.T) {
	code, out, _ := command(t, "", "check", "--example")
	if code != 0 || out != string(config.Example) {
		t.Errorf("exit code %d", code)
	}
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, config.Example, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := command(t, "", "check", "--config", file); code != 0 || !strings.Contains(out, "is good") {
		t.Errorf("exit code %d %s", code, errs)
	}
}

func TestLabel(t *testing.T) {
	code, out, errs := command(t, "There is a large effusion on the left. No pneumothorax.\nThe heart is enlarged.\n", "label")
	if code != 0 {
		t.Fatal(errs)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	want := []map[string]pipeline.Presence{
		{"Pleural Effusion": pipeline.Present, "Pneumothorax": pipeline.Absent, "Cardiomegaly": pipeline.NotSaid},
		{"Pleural Effusion": pipeline.NotSaid, "Cardiomegaly": pipeline.Present},
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines", len(lines))
	}
	for i, l := range lines {
		var got map[string]pipeline.Presence
		if err := json.Unmarshal([]byte(l), &got); err != nil || len(got) != len(pipeline.Labels) {
			t.Fatalf("%v %s", err, l)
		}
		for label, p := range want[i] {
			if got[label] != p {
				t.Errorf("line %d: %s is %q, want %q", i, label, got[label], p)
			}
		}
	}
}

// The format of numpy's .npy files, version 1.0: the header ends on a multiple of 64 bytes.
func TestNPY(t *testing.T) {
	b := npy([]float32{1, -2.5, 3, 4}, 1, 2, 2)
	n := 10 + int(binary.LittleEndian.Uint16(b[8:]))
	if n%64 != 0 || string(b[:8]) != "\x93NUMPY\x01\x00" || b[n-1] != '\n' || !strings.Contains(string(b[:n]), "'shape': (1, 2, 2)") {
		t.Errorf("header %q", b[:n])
	}
	if len(b) != n+16 || math.Float32frombits(binary.LittleEndian.Uint32(b[n+4:])) != -2.5 {
		t.Errorf("data %x", b[n:])
	}
}
