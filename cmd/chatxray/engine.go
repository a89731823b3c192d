package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"chatxray/config"
	"chatxray/dicomweb"
	"chatxray/modelrt"
	"chatxray/parts"
	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
	"chatxray/pipeline/label"
	"chatxray/sr"
)

// modelFlags choose the model and where it runs; they win over the configuration file.
type modelFlags struct {
	Bundle  string `env:"CHATXRAY_BUNDLE" help:"Folder of the model bundle; default: chatxray-base." placeholder:"DIR"`
	Threads int    `env:"CHATXRAY_THREADS" help:"Threads of ONNX Runtime; 0: one a core."`
	Device  string `env:"CHATXRAY_DEVICE" enum:"auto,cpu,cuda," default:"" help:"auto (CUDA where its libraries load), cpu, cuda."`
}

func (f modelFlags) over(c modelrt.Config) modelrt.Config {
	if f.Bundle != "" {
		c.Bundle = f.Bundle
	}
	if f.Threads != 0 {
		c.Threads = f.Threads
	}
	if f.Device != "" {
		c.Device = f.Device
	}
	return c
}

// engine is the model with the steps around it: what reading a study needs, with a server or without.
type engine struct {
	model model
	steps pipeline.Steps
}

// model reads and answers: a bundle that runs here, or one that points at an endpoint.
type model interface {
	pipeline.Model
	dicomweb.Chat
	Bundle() *modelrt.Bundle
	// Language is that of the reports.
	Language() string
	// Opinion writes what the model thinks of the wording of a draft.
	Opinion(ctx context.Context, draft, language string) (*pipeline.ChatAnswer, error)
	// Load is how many texts wait and how many are being written.
	Load() (waiting, active int)
	Close() error
}

func openEngine(ctx context.Context, s streams, flags modelFlags) (*engine, error) {
	cfg := config.Default()
	cfg.Model = flags.over(cfg.Model)
	return startEngine(ctx, s, cfg, nil)
}

// startEngine loads the bundle, and ONNX Runtime where it runs here. The base model's weights are made in the cache when they are not there yet.
// change, where it is not nil, has the last word about the options.
func startEngine(ctx context.Context, s streams, cfg config.Config, change func(*modelrt.Options)) (*engine, error) {
	if err := cfg.Model.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	setUpCodecs(s.log)
	dir, began := bundleDir(cfg.Model.Bundle), time.Now()
	if b, err := modelrt.OpenBundle(dir); err == nil { // what is wrong with a bundle is told below
		if _, err := b.Manifest.Language(cfg.Model.Language); err != nil {
			return nil, fmt.Errorf("bundle %s: %w", b.Manifest.Name, err)
		}
		if b.Manifest.Kind == modelrt.KindRemote {
			options := modelrt.Options{Language: cfg.Model.Language, Label: label.Report, Knows: label.Knows, Now: time.Now}
			if change != nil {
				change(&options)
			}
			model, err := openRemote(ctx, s.log, dir, options)
			if err != nil {
				return nil, err
			}
			return &engine{model: model, steps: steps(model, cfg)}, nil
		}
	}
	runtime, err := startRuntime(s.log, cfg.Model.Wanted())
	if err != nil {
		return nil, err
	}
	var devices []int
	if runtime.Device() == modelrt.CUDA {
		devices = cfg.Model.Devices
	}
	cache, err := cacheDir("weights")
	if err != nil {
		return nil, err
	}
	options := modelrt.Options{
		Base:      func(_ context.Context, part string) (string, error) { return parts.Path(part) },
		Cache:     cache,
		Progress:  progress(s.err, "making the weights of "+filepath.Base(dir)),
		Threads:   cfg.Model.Threads,
		Texts:     cfg.Model.Texts,
		Form:      cfg.Model.Form,
		EightBits: cfg.Model.Activations == "int8",
		Devices:   devices,
		Memory:    int64(cfg.Model.MemoryMB) << 20,
		Language:  cfg.Model.Language,
		Spin:      cfg.Model.Spin,
		Label:     label.Report,
		Knows:     label.Knows,
		Now:       time.Now,
	}
	if change != nil {
		change(&options)
	}
	model, err := modelrt.Open(ctx, runtime, dir, options)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBundle, err)
	}
	if why := model.Fallback(); why != "" && cfg.Model.Wanted() == modelrt.Auto && runtime.Device() == modelrt.CUDA {
		s.log.Warn().Str("reason", why).Msg("the bundle does not run on CUDA; the CPU is used")
	}
	ref := model.Ref()
	s.log.Info().Str("model", ref.Name).Str("version", ref.Version).Str("onnxruntime", runtime.Version()).Str("device", string(model.Device())).Str("form", model.Form()).
		Dur("took", time.Since(began)).Msg("model loaded")
	return &engine{model: model, steps: steps(model, cfg)}, nil
}

// Close frees the model.
func (e *engine) Close() { e.model.Close() }

// steps wires the rooms into the verbs of the line.
func steps(model model, cfg config.Config) pipeline.Steps {
	language := model.Language()
	if language == model.Bundle().Manifest.Languages[0] {
		language = ""
	}
	return pipeline.Steps{
		Language: language,
		Select: func(st *pipeline.Study) ([]pipeline.Chosen, []pipeline.Refusal) {
			return dicom.Select(st, model.Bundle().Manifest.Patients.MinAgeYears)
		},
		Decode: func(ctx context.Context, c pipeline.Chosen) (*pipeline.Image, error) {
			img, err := dicom.Decode(ctx, c.Instance, c.Frame)
			if err != nil {
				return nil, err
			}
			return img, dicom.CheckExposure(img)
		},
		Model: model,
		Write: func(st *pipeline.Study, r *pipeline.Reading, earlier []pipeline.Record) ([]pipeline.Document, error) {
			in := sr.Input{Reading: r, Software: softwareVersion(), Station: cfg.Station, Zone: cfg.Zone()}
			for _, i := range st.Instances {
				if i.SOPInstanceUID == r.Inputs[0].SOPInstanceUID {
					in.Header = i.Header
				}
			}
			if len(earlier) > 0 {
				in.Predecessors = earlier[len(earlier)-1].Documents
			}
			return sr.Documents(in, dicom.Encode)
		},
	}
}

var errBundle = errors.New("model bundle")

func startRuntime(log zerolog.Logger, device modelrt.Device) (*modelrt.Runtime, error) {
	name := "onnxruntime"
	if device != modelrt.CPU {
		if _, err := parts.Path("onnxruntime-gpu"); err == nil {
			name = "onnxruntime-gpu"
		}
	}
	library, err := parts.Path(name)
	if err != nil {
		return nil, err
	}
	runtime, err := modelrt.Start(library, device)
	if err != nil {
		return nil, err
	}
	if why := runtime.Fallback(); why != "" && name == "onnxruntime-gpu" {
		log.Warn().Str("reason", why).Msg("CUDA does not load; the CPU is used")
	}
	return runtime, nil
}

// setUpCodecs tells pipeline/dicom where the codec module is. Without it only the compressed syntaxes that need it are refused.
func setUpCodecs(log zerolog.Logger) {
	path, err := parts.Path("dcmjs-codecs")
	if err != nil {
		log.Warn().Err(err).Msg("compressed transfer syntaxes that need the codec module are refused")
		return
	}
	dicom.SetCodecModule(path)
}

const defaultBundle = "chatxray-base"

// bundlesDirs lists the folders in which bundles are looked for: $CHATXRAY_BUNDLES, beside the binary, the working directory, the
// system's share.
func bundlesDirs() []string {
	var dirs []string
	if d := os.Getenv("CHATXRAY_BUNDLES"); d != "" {
		dirs = append(dirs, d)
	}
	if exe, err := os.Executable(); err == nil {
		if exe, err = filepath.EvalSymlinks(exe); err == nil {
			dirs = append(dirs, filepath.Join(filepath.Dir(exe), "bundles"), filepath.Join(filepath.Dir(exe), "..", "bundles"))
		}
	}
	return append(dirs, "bundles", "/usr/share/chatxray/bundles")
}

// bundleDir finds a bundle by folder or by name; empty is the default bundle. It returns the name itself when there is none, so that
// the error names it.
func bundleDir(name string) string {
	if name == "" {
		name = defaultBundle
	}
	if _, err := os.Stat(filepath.Join(name, "manifest.json")); err == nil {
		return name
	}
	for _, d := range bundlesDirs() {
		if _, err := os.Stat(filepath.Join(d, name, "manifest.json")); err == nil {
			return filepath.Clean(filepath.Join(d, name))
		}
	}
	return name
}

// cacheDir is where things are kept that can be made again.
func cacheDir(name string) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no folder for caches: %w; set XDG_CACHE_HOME", err)
	}
	return filepath.Join(base, "chatxray", name), nil
}

// progress tells how far a long work on bytes has come: a line that is rewritten on a terminal, else one line for each quarter.
func progress(w io.Writer, what string) func(done, total int64) {
	last := int64(-1)
	return func(done, total int64) {
		if total <= 0 {
			return
		}
		step := done * 100 / total
		if !isTerminal(w) {
			step = step / 25 * 25
		}
		if step == last {
			return
		}
		last = step
		switch {
		case !isTerminal(w):
			fmt.Fprintf(w, "%s: %d %%\n", what, step)
		case done < total:
			fmt.Fprintf(w, "\r%s: %3d %%", what, step)
		default:
			fmt.Fprintf(w, "\r%s: done \n", what)
		}
	}
}
