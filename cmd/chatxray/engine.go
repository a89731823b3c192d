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

// modelFlags choose the model, where it runs, and what becomes of its reports; they win over the configuration file.
type modelFlags struct {
	placeFlags
	Policy string `env:"CHATXRAY_POLICY" enum:"mark,drop,hold," default:"" help:"What becomes of sentences that a rule flags: mark (show them so), drop (take them out), hold (the whole report waits for a person)."`
}

func (f modelFlags) over(c modelrt.Config) modelrt.Config {
	if f.Policy != "" {
		c.Evidence.Policy = modelrt.Policy(f.Policy)
	}
	return f.placeFlags.over(c)
}

// placeFlags choose the model and where it runs.
type placeFlags struct {
	Bundle   string `env:"CHATXRAY_BUNDLE" help:"Folder of the model bundle; default: chatxray-base." placeholder:"DIR"`
	Adapters string `env:"CHATXRAY_ADAPTERS" help:"Folder with more LoRA adapters than the bundle has." placeholder:"DIR"`
	Adapter  string `env:"CHATXRAY_ADAPTER" help:"LoRA adapter of the bundle, by its name, that reports and answers are written with; default: the bundle's own." placeholder:"NAME"`
	Threads  int    `env:"CHATXRAY_THREADS" help:"Threads of ONNX Runtime; 0: one a core."`
	Device   string `env:"CHATXRAY_DEVICE" enum:"auto,cpu,cuda," default:"" help:"auto (CUDA where its libraries load), cpu, cuda."`
}

func (f placeFlags) over(c modelrt.Config) modelrt.Config {
	if f.Bundle != "" {
		c.Bundle = f.Bundle
	}
	if f.Adapters != "" {
		c.Adapters = f.Adapters
	}
	if f.Adapter != "" {
		c.Adapter = f.Adapter
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
	model model           // reads and answers, with the adapter that is configured; nil with the stub reader
	own   model           // the same with the bundle's own adapter
	named []dicomweb.Chat // the same with each other adapter
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

func openEngine(ctx context.Context, s streams, flags placeFlags) (*engine, error) {
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
	if b, err := modelrt.OpenBundle(dir); errors.Is(err, pipeline.ErrNotFound) {
		return nil, bundleError(cfg.Model.Bundle, err)
	} else if err == nil { // what is wrong with a bundle is told below
		if _, err := b.Manifest.Language(cfg.Model.Language); err != nil {
			return nil, fmt.Errorf("bundle %s: %w", b.Manifest.Name, err)
		}
		if b.Manifest.Kind == modelrt.KindRemote {
			if cfg.Model.Adapter != "" || cfg.Model.Adapters != "" {
				return nil, fmt.Errorf("%w: model.adapter, model.adapters: bundle %s runs elsewhere; adapters are the endpoint's to choose", errConfig, b.Manifest.Name)
			}
			options := modelrt.Options{Language: cfg.Model.Language, Label: label.Report, Knows: label.Knows, Check: label.Check, Policy: cfg.Model.Evidence.Policy, Now: time.Now}
			if change != nil {
				change(&options)
			}
			model, err := openRemote(ctx, s.log, dir, options)
			if err != nil {
				return nil, err
			}
			return &engine{model: model, own: model, steps: steps(model, cfg)}, nil
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
		Adapters:  cfg.Model.Adapters,
		Spin:      cfg.Model.Spin,
		Label:     label.Report,
		Knows:     label.Knows,
		Check:     label.Check,
		Policy:    cfg.Model.Evidence.Policy,
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
	asked, err := model.With(cfg.Model.Adapter)
	if err != nil {
		model.Close()
		return nil, fmt.Errorf("%w: model.adapter: %w", errBundle, err)
	}
	e := &engine{model: asked, own: model, steps: steps(asked, cfg)}
	for _, name := range model.Adapters()[1:] {
		if m, err := model.With(name); err == nil { // it has all that it names
			e.named = append(e.named, m)
		}
	}
	ref := asked.Ref()
	s.log.Info().Str("model", ref.Name).Str("version", ref.Version).Str("onnxruntime", runtime.Version()).Str("device", string(model.Device())).Str("form", model.Form()).
		Dur("took", time.Since(began)).Msg("model loaded")
	return e, nil
}

// Close frees the model.
func (e *engine) Close() {
	if e.model != nil {
		e.model.Close()
	}
}

// steps wires the rooms into the verbs of the line.
func steps(model model, cfg config.Config) pipeline.Steps {
	s := looking(model.Bundle().Manifest.Patients.MinAgeYears)
	s.Model = model
	if language := model.Language(); language != model.Bundle().Manifest.Languages[0] {
		s.Language = language
	}
	s.Write = writing(cfg)
	return s
}

// writing is how documents are made of a reading.
func writing(cfg config.Config) func(*pipeline.Study, *pipeline.Reading, []pipeline.Record) ([]pipeline.Document, error) {
	zone := cfg.Zone()
	return func(st *pipeline.Study, r *pipeline.Reading, earlier []pipeline.Record) ([]pipeline.Document, error) {
		in := sr.Input{Reading: r, Software: softwareVersion(), Station: cfg.Station, Zone: zone}
		for _, i := range st.Instances {
			if i.SOPInstanceUID == r.Inputs[0].SOPInstanceUID {
				in.Header = i.Header
			}
		}
		if len(earlier) > 0 {
			in.Predecessors = earlier[len(earlier)-1].Documents
		}
		return sr.Documents(in, dicom.Encode)
	}
}

// looking are the steps up to the image that is read.
func looking(minAge int) pipeline.Steps {
	return pipeline.Steps{
		Select: func(st *pipeline.Study) ([]pipeline.Chosen, []pipeline.Refusal) { return dicom.Select(st, minAge) },
		Decode: func(ctx context.Context, c pipeline.Chosen) (*pipeline.Image, error) {
			img, err := dicom.Decode(ctx, c.Instance, c.Frame)
			if err != nil {
				return nil, err
			}
			return img, dicom.CheckExposure(img)
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
