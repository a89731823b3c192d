package modelrt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"image/png"
	"os"
	"strings"
	"sync"
	"time"

	"chatxray/modelrt/guard"
	"chatxray/modelrt/remote"
	"chatxray/pipeline"
)

// Remote is an opened bundle of the kind remote: a model at an endpoint, which reads and answers as a Model does. It is safe for concurrent use.
//
// Only pixels and words leave, in the form that Preview shows: nothing of a header.
type Remote struct {
	bundle   *Bundle
	client   *remote.Client
	scripts  map[string]guard.Scripts // by language
	decoys   [][]byte                 // PNG
	language string                   // of the reports
	label    func([]string) []pipeline.Finding
	knows    func(string) bool
	rules    rules
	now      func() time.Time

	mu          sync.Mutex
	pictures    recent[pipeline.Digest, *sentPicture]
	fingerprint string // of the last answer
}

// maxDecoyFile bounds the bytes of one decoy of a remote bundle.
const maxDecoyFile = 16 << 20

// OpenRemote verifies the bundle in dir and opens it. It asks nothing of the endpoint; Identify does. Of the options Language, Label, Knows, Check, Policy and Now are used;
// Structured is refused.
func OpenRemote(dir string, o Options) (*Remote, error) {
	if o.Label == nil || o.Now == nil {
		return nil, fmt.Errorf("%w options: Label and Now must be set", pipeline.ErrInvalid)
	}
	b, err := Verify(dir)
	if err != nil {
		return nil, err
	}
	if b.Manifest.Kind != KindRemote {
		return nil, fmt.Errorf("bundle %s: %w: it is not of the kind %s", b.Manifest.Name, pipeline.ErrUnsupported, KindRemote)
	}
	if o.Structured {
		return nil, fmt.Errorf("bundle %s: %w: forms; what a model elsewhere writes is not held to one", b.Manifest.Name, pipeline.ErrUnsupported)
	}
	r := &Remote{bundle: b, client: remote.New(*b.Manifest.Remote), scripts: map[string]guard.Scripts{}, label: o.Label, knows: o.Knows, rules: rules{o.Check, o.Policy}, now: o.Now}
	if r.language, err = b.Manifest.Language(o.Language); err != nil {
		return nil, fmt.Errorf("bundle %s: %w", b.Manifest.Name, err)
	}
	for _, l := range b.Manifest.Languages {
		if r.scripts[l], err = guard.ScriptsFor(l); err != nil {
			return nil, err
		}
	}
	if r.decoys, err = b.remoteDecoys(); err != nil {
		return nil, err
	}
	return r, nil
}

// remoteDecoys reads the images of other patients. Their sizes are those of the manifest.
func (b *Bundle) remoteDecoys() (list [][]byte, err error) {
	for _, name := range b.Manifest.Remote.Decoys {
		data, err := os.ReadFile(b.path(name))
		if err != nil {
			return nil, err
		}
		c, err := png.DecodeConfig(bytes.NewReader(data))
		if p := b.Manifest.Preprocess; err != nil || c.Width > p.Width || c.Height > p.Height {
			return nil, fmt.Errorf("%w: %s is no PNG file of up to %d×%d pixels", pipeline.ErrInvalid, name, p.Width, p.Height)
		}
		list = append(list, data)
	}
	return list, nil
}

// Bundle is what r was opened from.
func (r *Remote) Bundle() *Bundle { return r.bundle }

// Where is the place that images and words go to.
func (r *Remote) Where() string { return r.bundle.Manifest.Remote.Where() }

// Identify asks the endpoint what it serves, in one line. Errors: ErrUnavailable, ErrBusy.
func (r *Remote) Identify(ctx context.Context) (string, error) {
	i, err := r.client.Identify(ctx)
	if err != nil {
		return "", fmt.Errorf("endpoint of %s: %w", r.bundle.Manifest.Name, err)
	}
	return i.String(), nil
}

// Load is how many requests wait and how many are under way.
func (r *Remote) Load() (waiting, active int) { return r.client.Load() }

// Close closes idle connections.
func (r *Remote) Close() error {
	r.client.Close()
	return nil
}

// Ref names the model: the bundle's name and revision, and a digest of its manifest with what the endpoint said last that it serves.
func (r *Remote) Ref() pipeline.ModelRef { return r.ref(r.client.Known(), nil) }

// ref names the model of one answer. What an answer alone tells is in Served, not in the digest, which must be known before it is asked.
func (r *Remote) ref(i remote.Identity, a *remote.Answer) pipeline.ModelRef {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%q %q %q %q\n", r.bundle.Digest, i.ID, i.Root, i.Parent, i.Digest)
	served := []string{i.String()}
	if a != nil && a.Model != "" && a.Model != i.ID {
		served = append(served, "answered as "+a.Model)
	}
	if a != nil && a.Fingerprint != "" {
		served = append(served, "fingerprint "+a.Fingerprint)
	}
	return pipeline.ModelRef{Name: r.bundle.Manifest.Name, Version: r.bundle.Manifest.Revision, Digest: pipeline.Digest(h.Sum(nil)), Served: strings.Join(served, ", ")}
}

// answered looks at an answer: where its fingerprint is another than the last one's, the endpoint is asked again what it serves.
func (r *Remote) answered(a *remote.Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fingerprint != "" && a.Fingerprint != r.fingerprint {
		r.client.Forget()
	}
	r.fingerprint = a.Fingerprint
}

// Preview returns the picture that is sent of img, as a PNG file.
func (r *Remote) Preview(img *pipeline.Image) ([]byte, error) {
	return preview(r.bundle.Manifest.Preprocess, img)
}

// Read reads one image: the endpoint writes a report of the picture, which is looked at as a whole (scripts, sentences), weighed where the endpoint gives
// log-probabilities, and labelled. The error is a pipeline.Refusal (a view that the header does not tell), ctx's cause, or wraps ErrInvalid (the image,
// or the endpoint refuses the request), ErrModel (nothing came out that may leave), ErrBusy or ErrUnavailable.
func (r *Remote) Read(ctx context.Context, img *pipeline.Image) (*pipeline.Reading, error) {
	if img == nil || img.Instance == nil {
		return nil, fmt.Errorf("%w: an image without its instance", pipeline.ErrInvalid)
	}
	reading, err := r.read(ctx, img)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.bundle.Manifest.Name, err)
	}
	return reading, nil
}

func (r *Remote) read(ctx context.Context, img *pipeline.Image) (*pipeline.Reading, error) {
	f := r.bundle.Manifest
	if err := f.CanRead(); err != nil {
		return nil, err
	}
	if img.ViewUnknown {
		return nil, pipeline.Refusal{SOPInstanceUID: img.Instance.SOPInstanceUID, Reason: pipeline.UnknownView,
			Detail: "nothing in its header says that the view is frontal, and this model cannot tell"}
	}
	picture, err := r.Preview(img)
	if err != nil {
		return nil, err
	}
	identity, err := r.client.Identify(ctx)
	if err != nil {
		return nil, err
	}
	language := r.language
	own := f.Remote.Evidence == remote.EvidenceChatxray
	got, err := r.client.Chat(ctx, remote.Request{Messages: r.asked(picture), Sampling: pipeline.DefaultSampling(), MaxTokens: f.Generation.MaxNewTokens,
		Stop: f.Generation.StopStrings, Language: language, Logprobs: own, Evidence: own}, r.within(language, nil))
	if err != nil {
		return nil, err
	}
	r.answered(got)
	a := &answer{text: []byte(got.Text), tokens: make([]int32, got.Written), truncated: got.End == pipeline.EndLength} // how many is all that is known of its tokens
	rows, none, err := r.scores(ctx, picture, a, got)
	if err != nil {
		return nil, err
	}
	sentences, err := a.sentences(f.Report.ImpressionPrefix)
	if err != nil {
		return nil, err
	}
	if none == "" {
		weigh(sentences, rows)
	} else {
		for i := range sentences {
			sentences[i].FirstToken, sentences[i].Tokens = 0, 0
		}
	}
	findings, err := r.findings(sentences)
	if err != nil {
		return nil, err
	}
	reading := &pipeline.Reading{
		StudyInstanceUID: img.Instance.StudyInstanceUID,
		Inputs:           []pipeline.InputRef{pipeline.InputOf(img.Instance, img.Frame)},
		Model:            r.ref(identity, got),
		Language:         language,
		Tokens:           []int32{},
		Sentences:        sentences,
		Findings:         findings,
		Truncated:        a.truncated,
		NoEvidence:       none,
		Created:          r.now(),
		RunSeconds:       got.Spent.Seconds(),
	}
	return reading, r.rules.judge(reading, img.Instance.Header, r.findings)
}

// findings labels sentences.
func (r *Remote) findings(sentences []pipeline.Sentence) ([]pipeline.Finding, error) {
	texts := make([]string, len(sentences))
	for i, s := range sentences {
		texts[i] = s.Text
	}
	return r.bundle.Manifest.headed(labelled(r.label, r.knows, r.language, texts), nil)
}

// Language is that of the reports.
func (r *Remote) Language() string { return r.language }

// asked is the conversation that a report answers.
func (r *Remote) asked(picture []byte) (m []remote.Message) {
	c := r.bundle.Manifest.Remote
	if c.System != "" {
		m = append(m, remote.Message{Role: pipeline.RoleSystem, Parts: []remote.Part{{Text: c.System}}})
	}
	return append(m, remote.Message{Role: pipeline.RoleUser, Parts: []remote.Part{{PNG: picture}, {Text: c.Prompt}}})
}

// within hands pieces to emit, which may be nil, as long as they are in the scripts of a language. Nobody masked what the endpoint chose, so this is
// where a foreign script is stopped.
func (r *Remote) within(language string, emit func(pipeline.ChatPiece) error) func(pipeline.ChatPiece) error {
	scripts := r.scripts[language]
	return func(p pipeline.ChatPiece) error {
		if err := scripts.Check(p.Text); err != nil {
			return err
		}
		if emit == nil {
			return nil
		}
		return emit(p)
	}
}
