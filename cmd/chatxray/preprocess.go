package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"chatxray/modelrt"
	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

type preprocessCmd struct {
	Paths   []string `arg:"" help:"DICOM, JPEG or PNG files, or folders with them; - reads paths from standard input, one a line."`
	Out     string   `required:"" help:"Folder for the results: NAME.png and NAME.npy for each NAME.*" placeholder:"DIR"`
	Format  []string `default:"png,npy" enum:"png,npy" help:"What to write: png (8 bit, what the model sees), npy (float32 [channels, height, width], the model's tensor)."`
	Bundle  string   `help:"Model bundle whose preprocessing is meant; default: the default bundle." placeholder:"DIR" xor:"spec"`
	Spec    string   `help:"JSON file with a manifest's preprocess object, instead of a bundle." placeholder:"FILE" xor:"spec"`
	Workers int      `default:"0" help:"Files at the same time; 0: one a core."`
}

// Help is shown by chatxray preprocess --help.
func (preprocessCmd) Help() string {
	return `Serving and training both read images this way, so that they cannot drift. Frontal or not is not asked here: every image is
written, the first frame of a multi-frame object.`
}

// Run writes the images in parallel. One that fails is told on standard error and does not stop the others.
func (c preprocessCmd) Run(ctx context.Context, s streams) error {
	spec, err := c.spec()
	if err != nil {
		return err
	}
	files, err := c.files(s.in)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return err
	}
	setUpCodecs(s.log)
	workers := c.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	work := make(chan string)
	var failed atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range min(workers, max(1, len(files))) {
		p, err := modelrt.NewPreprocessor(spec)
		if err != nil {
			return err
		}
		wg.Go(func() {
			for f := range work {
				if err := c.one(ctx, p, f); err != nil {
					failed.Add(1)
					mu.Lock()
					fmt.Fprintf(s.err, "chatxray: %s: %v\n", f, err)
					mu.Unlock()
				}
			}
		})
	}
	for i, f := range files {
		if ctx.Err() != nil {
			break
		}
		work <- f
		if (i+1)%500 == 0 {
			fmt.Fprintf(s.err, "preprocess: %d of %d\n", i+1, len(files))
		}
	}
	close(work)
	wg.Wait()
	if n := failed.Load(); n > 0 {
		return fmt.Errorf("%d of %d files could not be read: %w", n, len(files), pipeline.ErrInvalid)
	}
	return ctx.Err()
}

func (c preprocessCmd) spec() (modelrt.Preprocess, error) {
	if c.Spec == "" {
		b, err := modelrt.OpenBundle(bundleDir(c.Bundle))
		if err != nil {
			return modelrt.Preprocess{}, bundleError(c.Bundle, err)
		}
		return b.Manifest.Preprocess, nil
	}
	var p modelrt.Preprocess
	b, err := os.ReadFile(c.Spec)
	if err != nil {
		return p, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, fmt.Errorf("%s: %w: %w", c.Spec, pipeline.ErrInvalid, err)
	}
	return p, p.Validate()
}

var pictureSuffixes = []string{".jpg", ".jpeg", ".png"}

func (c preprocessCmd) files(in io.Reader) ([]string, error) {
	paths := c.Paths
	if slices.Contains(paths, "-") {
		paths = slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return p == "-" })
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			if l := strings.TrimSpace(lines.Text()); l != "" {
				paths = append(paths, l)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, err
		}
	}
	out, err := listFiles(paths, "DICOM, JPEG or PNG", func(path string) bool {
		return slices.Contains(pictureSuffixes, strings.ToLower(filepath.Ext(path))) || hasPreamble(path)
	})
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, f := range out {
		if other, ok := names[stem(f)]; ok && other != f {
			return nil, fmt.Errorf("%s and %s would both be written as %s: %w; give them in two runs", other, f, stem(f), pipeline.ErrInvalid)
		}
		names[stem(f)] = f
	}
	return out, nil
}

func stem(path string) string {
	return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
}

func (c preprocessCmd) one(ctx context.Context, p *modelrt.Preprocessor, path string) error {
	img, err := openImage(ctx, path)
	if err != nil {
		return err
	}
	at := p.Place(img)
	if slices.Contains(c.Format, "png") {
		g := image.NewGray(image.Rect(0, 0, at.Width, at.Height))
		if err := p.Gray(g.Pix, img); err != nil {
			return err
		}
		var b bytes.Buffer
		if err := png.Encode(&b, g); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(c.Out, stem(path)+".png"), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if slices.Contains(c.Format, "npy") {
		t := make([]float32, p.Spec().Channels*at.Height*at.Width)
		if err := p.Into(t, img); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(c.Out, stem(path)+".npy"), npy(t, p.Spec().Channels, at.Height, at.Width), 0o644)
	}
	return nil
}

// openImage opens a DICOM file, or a JPEG or PNG picture, by what its first bytes are.
func openImage(ctx context.Context, path string) (*pipeline.Image, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(b, []byte("\x89PNG")) || bytes.HasPrefix(b, []byte("\xff\xd8\xff")) {
		return dicom.OpenPicture(b)
	}
	in, err := dicom.Peek(b)
	if err != nil {
		return nil, err
	}
	return dicom.Decode(ctx, in, 0)
}

// npy encodes a float32 array as numpy does (format version 1.0): little endian, C order.
func npy(data []float32, shape ...int) []byte {
	dims := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(shape)), ", "), "[]")
	head := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }", dims)
	head += strings.Repeat(" ", 63-(10+len(head))%64) + "\n"
	out := append([]byte("\x93NUMPY\x01\x00"), byte(len(head)), byte(len(head)>>8))
	out = append(out, head...)
	for _, v := range data {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
	}
	return out
}
