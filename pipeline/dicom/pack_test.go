package dicom_test

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// row is one line of the data pack's manifest.
type row struct {
	file, syntax, reference, hash, photometric, planar, expect, note, check string
	rows, columns, allocated, stored, samples, frames                       int
	signed, lossless                                                        bool
}

// pack is the folder of the data pack's DICOM files; the test is skipped where it is not there.
func pack(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	data := filepath.Join(dir, "..", "shared", "data", "dicom")
	if _, err := os.Stat(filepath.Join(data, "manifest.csv")); err != nil {
		t.Skip("../shared absent: no data pack beside the repository, so nothing is compared with its files")
	}
	return data
}

// manifest reads the data pack's table.
func manifest(t testing.TB) []row {
	t.Helper()
	f, err := os.Open(filepath.Join(pack(t), "manifest.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for i, name := range lines[0] {
		at[name] = i
	}
	var out []row
	for _, l := range lines[1:] {
		text := func(name string) string {
			i, ok := at[name]
			if !ok {
				t.Fatalf("the manifest has no column %s", name)
			}
			return l[i]
		}
		number := func(name string) int { n, _ := strconv.Atoi(text(name)); return n }
		out = append(out, row{
			file: text("file"), syntax: text("transfer_syntax_uid"), reference: text("reference_file"), hash: text("sha256_of_decoded_pixels"),
			photometric: text("decoded_photometric"), planar: text("decoded_planar"), expect: text("expect"), note: text("note"), check: text("reference_check"),
			rows: number("rows"), columns: number("cols"), allocated: number("bits_allocated"), stored: number("bits_stored"),
			samples: number("samples"), frames: max(1, number("frames")),
			signed: text("pixel_representation") == "1", lossless: text("lossless") == "1",
		})
	}
	if len(out) < 200 {
		t.Fatalf("the manifest has only %d lines", len(out))
	}
	return out
}

// packFile reads a file of the data pack, unpacking zstd.
func packFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(pack(t), name))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(name, ".zst") {
		return b
	}
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if b, err = d.DecodeAll(b, nil); err != nil {
		t.Fatal(err)
	}
	return b
}
