package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"chatxray/config"
	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/deliver"
	"chatxray/pipeline/dicom"
	"chatxray/pipeline/jobs"
)

type serveCmd struct {
	modelFlags
	Config   string `short:"c" help:"Configuration file (chatxray check --example prints every key)." placeholder:"FILE"`
	Listen   string `help:"Address to listen on; port 0 takes a free one. Default: 127.0.0.1:8080." placeholder:"ADDR"`
	Data     string `help:"Folder of the archive. Default: chatxray-data." placeholder:"DIR"`
	Viewer   string `help:"Folder of a web viewer (index.html of OHIF's dist) to serve at /." placeholder:"DIR"`
	Role     string `enum:"all,web,worker," default:"" help:"all: everything in one process. web: takes studies in, without a model. worker: reads and delivers. Webs and workers need archive.index (PostgreSQL) and jobs.redis. Default: all."`
	PortFile string `help:"Write the port to this file when listening." placeholder:"FILE"`

	Reader    string        `enum:"model,stub" default:"model" help:"model; or stub, which looks at no image and says so in every report, to try the machinery without a model."`
	StubSleep time.Duration `env:"CHATXRAY_STUB_SLEEP" default:"0s" help:"How long the stub reader takes over an image." placeholder:"DURATION"`
}

// Help is shown by chatxray serve --help.
func (serveCmd) Help() string {
	return `Needs nothing but this binary and its run-time parts: files and SQLite in the data folder, Redis inside the process, the CPU where
there is no GPU. Flags win over the configuration file. SIGTERM finishes running uploads (dicomweb.drain), finishes the study at hand or puts
it down safely (line.stop), and stops.

As several processes: serve --role web as often as clients need it, serve --role worker as often as there are GPUs, over one data folder, with
archive.index and jobs.redis (docs/operations.md). A web needs no bundle; a worker answers only what webs pass on to it, /healthz, /readyz
and /metrics.`
}

// Run serves until ctx ends.
func (c serveCmd) Run(ctx context.Context, s streams) (err error) {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	// The port first: a second service on it should fail before it loads a model.
	if err := cfg.DICOMweb.CheckListen(cfg.Listen); err != nil {
		return fmt.Errorf("%w: listen: %w", errConfig, err)
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("%w: listen: %w%s", errConfig, err, listenHint(err))
	}
	defer listener.Close()
	door, err := openDoor(cfg.DICOMweb, s.log)
	if err != nil {
		return err
	}
	defer door.Close()
	spareCollector()
	eng, err := c.start(ctx, s, cfg)
	if err != nil {
		return err
	}
	defer eng.Close()
	arch, err := archive.Open(cfg.Data, dicom.OpenFile, archiveOptions(s, cfg.Archive))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, arch.Close()) }()
	jobs.LogTo(func(said string) { s.log.Debug().Str("said", said).Msg("Redis") })
	claims, err := jobs.Open(ctx, cfg.Jobs)
	if err != nil {
		return err
	}
	defer claims.Close()

	id, err := arch.ID(ctx)
	if err != nil {
		return err
	}
	complete, err := cfg.Complete.Open(eng.steps.Select)
	if err != nil {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	line := &pipeline.Line{Config: cfg.Line, Complete: complete, Steps: eng.steps, Archive: arch, Studies: claims.Queue("studies:" + id), Claims: claims, Worker: claims.Worker(), Feeds: !cfg.Role.Reads(),
		Log: s.log, Now: time.Now}
	if cfg.Jobs.Redis != "" { // else nobody outlives the queues
		line.Lease = cfg.Jobs.Lease
	}
	for _, d := range cfg.Destinations {
		to, err := deliver.Open(d)
		if err != nil {
			return fmt.Errorf("%w: %w", errConfig, err)
		}
		line.Destinations = append(line.Destinations, deliver.NewCircuit(d, to, tellAway(s.log)).Destination(claims.Queue("to:"+d.Name+":"+id)))
	}
	arch.OnStored(func(study string, news bool) {
		if news {
			line.Stored(study)
		} else {
			line.Again(study)
		}
	})

	metrics := prometheus.NewRegistry()
	countLine(metrics, line)
	var keeping sync.WaitGroup
	keepCtx, stopKeeping := context.WithCancel(ctx)
	defer func() {
		stopKeeping()
		keeping.Wait()
	}()
	deletes := deleter{line, arch, cfg.Archive.Index != ""}
	retention := newKeeper(deletes, cfg.Archive.Retention, s.log, metrics)
	countWorkers(metrics, claims)
	checks := map[string]func(context.Context) error{"redis": claims.Ping, "index": arch.Ping, "files": arch.Ready}
	var member *membership
	switch {
	case eng.model != nil:
		countModel(metrics, eng.model)
		member = newMembership(claims, cfg, eng.model.Ref())
		checks["bundle"] = member.Check
	case cfg.Role.Reads():
		checks[stubSays] = func(context.Context) error { return nil }
	}
	web := dicomweb.New(cfg.DICOMweb, arch, roleDeps(cfg, eng, arch, dicomweb.Deps{
		Lookup: dicom.Lookup, Keyword: dicom.Keyword, Log: s.log, Version: softwareVersion(), Metrics: metrics, Readings: readings{line, arch, eng}, Work: line,
		Full:  (&full{queue: line.Studies, most: cfg.Jobs.MaxWaiting}).check,
		Guard: door.guard, Pages: door.pages(), Deleter: deletes,
		Imaging: imaging(), Checks: checks,
	}))
	port := listener.Addr().(*net.TCPAddr).Port
	if c.PortFile != "" {
		if err := os.WriteFile(c.PortFile, []byte(strconv.Itoa(port)+"\n"), 0o644); err != nil {
			return err
		}
	}
	if door.bare(cfg) {
		s.log.Warn().Msg("credentials and patient data cross the network unencrypted unless a proxy in front speaks TLS; dicomweb.tls has it here")
	}
	log.SetFlags(0)
	log.SetOutput(s.log) // what net/http has to say, failed handshakes above all
	listener, scheme := door.listen(listener)
	s.log.Info().Str("url", scheme+"://"+listener.Addr().String()+"/dicom-web").Str("data", cfg.Data).Str("role", string(cfg.Role)).Str("version", softwareVersion()).Msg("listening")
	if cfg.Role != config.RoleWorker { // one kind of process is enough
		keeping.Go(func() { retention.run(keepCtx) })
	}
	return work(ctx, s, listener, web, cfg.DICOMweb, func(lineCtx context.Context) error { return member.run(lineCtx, ctx, s, line) })
}

// tellAway tells the log when a destination goes away and when it is back.
func tellAway(log zerolog.Logger) func(pipeline.DestinationState) {
	return func(d pipeline.DestinationState) {
		if d.Away {
			log.Error().Str("destination", d.Name).Str("reason", d.Reason).Msg("the destination is away: its deliveries wait, one at a time tries whether it is back")
		} else {
			log.Info().Str("destination", d.Name).Msg("the destination answers again")
		}
	}
}

// start loads the model, unless the stub reader takes its place.
func (c serveCmd) start(ctx context.Context, s streams, cfg config.Config) (*engine, error) {
	if c.Reader == "stub" && cfg.Role.Reads() {
		return startStub(s, cfg, c.StubSleep), nil
	}
	return roleEngine(ctx, s, cfg)
}

// listenHint tells what to do where an address cannot be had.
func listenHint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "; another service listens there: stop it, or choose another address with --listen"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "; this machine does not have the address"
	case errors.Is(err, syscall.EACCES):
		return "; ports below 1024 need a privilege: choose another one with --listen"
	}
	return ""
}

// archiveOptions are those of an archive that tells the log what needs a look.
func archiveOptions(s streams, cfg archive.Config) archive.Options {
	o := cfg.Options(func(what, path string, err error) { s.log.Warn().Str("file", path).Err(err).Msg(what) })
	o.Header = dicom.OpenHeader
	o.Comparing = func(done bool, files, entered int) {
		if !done {
			s.log.Info().Msg("the archive was not left in order: its files are compared with the index, beside the work")
			return
		}
		s.log.Info().Int("files", files).Int("entered", entered).Msg("the files were compared with the index")
	}
	return o
}

// imaging hands pipeline/dicom to the server.
func imaging() dicomweb.Imaging {
	return dicomweb.Imaging{
		Object:     func(in *pipeline.Instance) (dicomweb.Object, error) { return dicom.OpenObject(in) },
		Transcodes: dicom.Transcodes,
		Assemble:   dicom.Assemble,
		AllowsVR:   dicom.AllowsVR,
	}
}

// work runs server and line until ctx ends or one of them fails, then stops both in order: uploads first, so that what they bring is
// still noticed. The line takes nothing any more from the end of ctx on.
func work(ctx context.Context, s streams, listener net.Listener, web http.Handler, cfg dicomweb.Config, run func(context.Context) error) error {
	serving, stopServing := context.WithCancel(ctx)
	lineCtx, stopLine := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLine()
	served, lined := make(chan error, 1), make(chan error, 1)
	go func() { served <- dicomweb.Serve(serving, listener, web, cfg) }()
	go func() { lined <- run(lineCtx) }()
	var failed error
	select {
	case failed = <-lined: // only by an error
		stopServing()
		return errors.Join(failed, <-served)
	case <-ctx.Done():
		s.log.Info().Msg("stopping: no study is begun any more; running uploads are finished first")
		stopServing()
		failed = <-served
	case failed = <-served:
		stopServing()
	}
	stopLine()
	return errors.Join(failed, <-lined)
}

func (c serveCmd) config() (config.Config, error) {
	cfg := config.Default()
	if c.Config != "" {
		var err error
		if cfg, err = readConfig(c.Config); err != nil {
			return cfg, err
		}
	}
	if c.Listen != "" {
		cfg.Listen = c.Listen
	}
	if c.Data != "" {
		cfg.Data = c.Data
	}
	if c.Role != "" {
		cfg.Role = config.Role(c.Role)
	}
	if c.Viewer != "" {
		cfg.DICOMweb.Viewer = c.Viewer
	}
	cfg.Model = c.over(cfg.Model)
	if err := cfg.Check(); err != nil {
		return cfg, fmt.Errorf("%w: %w", errConfig, err)
	}
	return cfg, nil
}

func readConfig(path string) (config.Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return config.Config{}, fmt.Errorf("%w: %w", errConfig, err)
	}
	cfg, err := config.Parse(b)
	if err != nil {
		return cfg, fmt.Errorf("%w: %s: %w", errConfig, path, err)
	}
	return cfg, nil
}

// readings answers about the line's studies over HTTP.
type readings struct {
	line *pipeline.Line
	arch *archive.Archive
	eng  *engine
}

// Status implements dicomweb.Readings.
func (r readings) Status(ctx context.Context, studyUID string) (pipeline.Status, error) {
	return r.line.Status(ctx, studyUID)
}

// Lives implements dicomweb.Readings.
func (r readings) Lives(ctx context.Context, state pipeline.State, after string, most int) ([]pipeline.Life, error) {
	return r.arch.Lives(ctx, state, after, most)
}

// Changes implements dicomweb.Readings.
func (r readings) Changes(ctx context.Context, studyUID string) ([]pipeline.Change, error) {
	return r.arch.Changes(ctx, studyUID)
}

// Records implements dicomweb.Readings.
func (r readings) Records(ctx context.Context, studyUID string) ([]pipeline.Record, error) {
	return r.arch.Records(ctx, studyUID)
}

// Preview implements dicomweb.Readings.
func (r readings) Preview(ctx context.Context, studyUID string) ([]byte, error) {
	st, err := r.line.Status(ctx, studyUID)
	if err != nil {
		return nil, err
	}
	if st.Record == nil || st.Record.Reading == nil {
		return nil, fmt.Errorf("study %s has not been read: %w", studyUID, pipeline.ErrNotFound)
	}
	return r.arch.Preview(ctx, studyUID, st.Record.Key)
}

// Heat implements dicomweb.Readings.
func (r readings) Heat(ctx context.Context, studyUID string, sentence int) ([]byte, error) {
	seen, err := r.Preview(ctx, studyUID)
	if err != nil {
		return nil, err
	}
	st, err := r.line.Status(ctx, studyUID)
	if err != nil {
		return nil, err
	}
	reading := st.Record.Reading
	if reading == nil || sentence > len(reading.Sentences) {
		return nil, fmt.Errorf("the report of study %s has no sentence %d: %w", studyUID, sentence, pipeline.ErrNotFound)
	}
	in := reading.Inputs[0]
	study, err := r.arch.Study(ctx, studyUID)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(study.Instances, func(i *pipeline.Instance) bool { return i.SOPInstanceUID == in.SOPInstanceUID })
	if i < 0 {
		return nil, fmt.Errorf("the image that the report of study %s is about: %w", studyUID, pipeline.ErrNotFound)
	}
	img, err := r.eng.steps.Decode(ctx, pipeline.Chosen{Instance: study.Instances[i], Frame: max(0, in.Frame-1)})
	if err != nil {
		return nil, err
	}
	one := *reading
	one.Sentences = reading.Sentences[sentence-1 : sentence]
	h, err := heat(ctx, r.eng.model, img, &one)
	if err != nil {
		return nil, err
	}
	return heatPicture(seen, h, 0, fmt.Sprintf("Sentence %d: %s", sentence, one.Sentences[0].Text))
}

// Release implements dicomweb.Readings.
func (r readings) Release(ctx context.Context, studyUID, by string) error {
	return r.line.Release(ctx, studyUID, by)
}

// Force implements dicomweb.Readings.
func (r readings) Force(ctx context.Context, studyUID, by string) error {
	return r.line.Force(ctx, studyUID, by)
}

// countModel shows what the model has to do.
func countModel(r *prometheus.Registry, model model) {
	for _, g := range []struct {
		name, help string
		value      func() int
	}{
		{"texts_waiting", "Texts (reports, answers) that wait for the model.", func() int { waiting, _ := model.Load(); return waiting }},
		{"texts_writing", "Texts that the model is writing.", func() int { _, writing := model.Load(); return writing }},
	} {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "chatxray", Name: g.name, Help: g.help},
			func() float64 { return float64(g.value()) }))
	}
}

// countLine shows what the line has done on /metrics.
func countLine(r *prometheus.Registry, line *pipeline.Line) {
	st := &line.Stats
	for _, c := range []struct {
		name, help string
		value      interface{ Load() int64 }
	}{
		{"studies_read_total", "Studies that the model has read.", &st.Read},
		{"studies_held_total", "Readings that were held for a person.", &st.Held},
		{"studies_refused_total", "Studies without an image that can be read.", &st.Refused},
		{"studies_failed_total", "Attempts to report a study that failed.", &st.Failed},
		{"deliveries_total", "Deliveries of a study's documents that a destination took.", &st.Delivered},
		{"delivery_errors_total", "Attempts to deliver that failed and are repeated.", &st.DeliveryErrors},
		{"deliveries_dead_total", "Deliveries that were given up.", &st.DeliveriesDead},
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "chatxray", Name: c.name, Help: c.help},
			func() float64 { return float64(c.value.Load()) }))
	}
	for _, g := range []struct {
		name, help string
		value      func() float64
	}{
		{"studies_waiting", "Studies whose quiet time has not ended, or that wait for a reader or another attempt.", waiting(line.Studies)},
		{"studies_reading", "Studies that are being read.", func() float64 { return float64(st.Reading.Load()) }},
		{"last_study_seconds", "From complete to documents stored, of the last study.", st.LastSeconds.Load},
		{"last_study_onnxruntime_seconds", "Inside ONNX Runtime, of the last study.", st.LastRunSeconds.Load},
	} {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "chatxray", Name: g.name, Help: g.help}, g.value))
	}
	claims := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "chatxray", Name: "claim_seconds",
		Help:    "From asking the queue for a study that is due to its reading begun in the index.",
		Buckets: []float64{0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 5}})
	r.MustRegister(claims)
	line.Claimed = func(took time.Duration) { claims.Observe(took.Seconds()) }
	for _, to := range line.Destinations {
		labels := prometheus.Labels{"destination": to.Name}
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "chatxray", Name: "deliveries_waiting", Help: "Deliveries that wait for a destination.", ConstLabels: labels}, waiting(to.Queue)),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "chatxray", Name: "destination_away", Help: "1 while a destination does not answer.", ConstLabels: labels}, func() float64 {
				if to.Answers().Away {
					return 1
				}
				return 0
			}))
	}
}

// waiting asks a queue how much waits in it; -1 where it does not answer.
func waiting(q pipeline.Queue) func() float64 {
	return func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		lanes, _, err := q.Size(ctx)
		if err != nil {
			return -1
		}
		n := 0
		for _, k := range lanes {
			n += k
		}
		return float64(n)
	}
}
