package modelrt

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"image"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// drawing is a model that says the same whatever it is asked.
type drawing struct {
	*Model
	t    *testing.T
	own  decoder
	says string
}

func (d *drawing) Chat(ctx context.Context, r pipeline.ChatRequest, emit func(pipeline.ChatPiece) error) (*pipeline.ChatAnswer, error) {
	said := append(d.prompt.tokenizer.EncodeTemplate(d.says), d.prompt.tokenizer.EncodeTemplate("<|endoftext|>")...)
	d.talks.settling.Wait()
	d.Load() // the engine has nothing to do
	d.engine.decoder = &saying{d.own, said, int32(len(placesOf(d.t, d.Model, r).ids))}
	return d.Model.Chat(ctx, r, emit)
}

// lying is an image of 40 rows and 80 columns that lies on its side: its rows go to the patient's feet, its columns to the left.
func lying(t *testing.T) []byte {
	t.Helper()
	var d pipeline.Dataset
	for tag, v := range map[pipeline.Tag]string{pipeline.TagSOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", pipeline.TagSOPInstanceUID: "1.2.3.4", pipeline.TagStudyInstanceUID: "1.2", pipeline.TagSeriesInstanceUID: "1.2.3"} {
		d.SetText(tag, "UI", v)
	}
	d.SetText(pipeline.TagModality, "CS", "DX")
	d.SetText(pipeline.TagViewPosition, "CS", "PA")
	d.SetText(pipeline.TagPatientOrientation, "CS", "F", "L")
	d.SetText(pipeline.TagPhotometricInterpretation, "CS", "MONOCHROME2")
	for tag, n := range map[pipeline.Tag]int64{pipeline.TagRows: 40, pipeline.TagColumns: 80, pipeline.TagBitsAllocated: 8, pipeline.TagBitsStored: 8, pipeline.TagHighBit: 7,
		pipeline.TagPixelRepresentation: 0, pipeline.TagSamplesPerPixel: 1} {
		d.SetInts(tag, "US", n)
	}
	d.Set(pipeline.Element{Tag: pipeline.TagPixelData, VR: "OB", Bytes: make([]byte, 40*80)})
	return must(dicom.Encode(d))
}

// boxesService answers with a model about what is stored in it.
func boxesService(t *testing.T, m dicomweb.Chat) (root string) {
	t.Helper()
	a, err := archive.Open(t.TempDir(), dicom.OpenFile, archive.Options{Header: dicom.OpenHeader})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	cfg := dicomweb.Default()
	srv := httptest.NewServer(dicomweb.New(cfg, a, dicomweb.Deps{Lookup: dicom.Lookup, Keyword: dicom.Keyword, Log: zerolog.Nop(), Guard: must(dicomweb.NewGuard(cfg, zerolog.Nop())),
		Talking: dicomweb.Talking{Chat: m, Conversations: a, Reference: func(ctx context.Context, study, series, sop string) (*pipeline.ChatImage, error) {
			found, err := a.Instances(ctx, study, series, sop)
			if err != nil {
				return nil, err
			}
			return &pipeline.ChatImage{Name: "dicom:" + study, Content: found[0].Digest, Load: func(ctx context.Context) (*pipeline.Image, error) {
				in, err := dicom.OpenFile(found[0].Path)
				if err != nil {
					return nil, err
				}
				return dicom.Decode(ctx, in, 0)
			}}, nil
		}}}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func posted(t *testing.T, url, media string, body []byte) []byte {
	t.Helper()
	resp, err := http.Post(url, media, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v: %s: %s", err, resp.Status, b)
	}
	return b
}

// Clients get boxes as docs/chat.md says: in pixels of the image as it was stored, the last of the messages', once in an answer and once in a stream, at its end; and no
// member where nothing was drawn.
func TestBoxesOverHTTP(t *testing.T) {
	m := openFamily(t, "qwenvl")
	d := &drawing{Model: m, t: t, own: m.engine.decoder}
	root := boxesService(t, d)
	posted(t, root+dicomweb.Root+"/studies", "application/dicom", lying(t))
	var first bytes.Buffer
	if err := png.Encode(&first, image.NewGray(image.Rect(0, 0, 48, 48))); err != nil {
		t.Fatal(err)
	}
	type object = map[string]any
	picture := func(url string) object { return object{"type": "image_url", "image_url": object{"url": url}} }
	words := func(s string) object { return object{"type": "text", "text": s} }
	messages := []object{
		{"role": "user", "content": []object{picture("data:image/png;base64," + base64.StdEncoding.EncodeToString(first.Bytes())), words("Where?")}},
		{"role": "assistant", "content": "There."},
		{"role": "user", "content": []object{picture("dicom:1.2"), words("And here?")}},
	}
	ask := func(stream bool) []byte {
		return posted(t, root+"/v1/chat/completions", "application/json", must(json.Marshal(object{"model": m.Card().Ref.Name, "messages": messages, "stream": stream})))
	}
	type piece struct {
		Choices []struct {
			Message, Delta struct{ Content string }
		}
		ChatXRay map[string]json.RawMessage
	}
	for _, c := range []struct{ says, text, boxes string }{
		// A half to three quarters of the way to the patient's left, which is down, and a quarter to a half to the feet, which is to the right.
		{"The heart <ref>is</ref><box>(500,250),(750,500)</box> large.", "The heart is large.", `[{"image":1,"label":"is","x0":20,"y0":20,"x1":40,"y1":30}]`},
		{"The <box>(0,0),(250,500)</box><box>(5,5),(5,5)</box> heart.", "The  heart.", `[{"image":1,"label":"","x0":0,"y0":0,"x1":40,"y1":10}]`},
		{"The heart is large.", "The heart is large.", ""},
	} {
		d.says = c.says
		var whole piece
		if err := json.Unmarshal(ask(false), &whole); err != nil || len(whole.Choices) != 1 {
			t.Fatal(err)
		}
		if got := whole.Choices[0].Message.Content; got != c.text || string(whole.ChatXRay["boxes"]) != c.boxes {
			t.Errorf("%q: %q, boxes %s", c.says, got, whole.ChatXRay["boxes"])
		}
		events := strings.Split(strings.TrimSpace(string(ask(true))), "\n\n")
		streamed, ends := "", len(events)-2 // [DONE] is behind it
		for i, e := range events[:ends+1] {
			var p piece
			if err := json.Unmarshal([]byte(strings.TrimPrefix(e, "data: ")), &p); err != nil || len(p.Choices) != 1 {
				t.Fatal(err, e)
			}
			streamed += p.Choices[0].Delta.Content
			if want := map[bool]string{i == ends: c.boxes}[true]; string(p.ChatXRay["boxes"]) != want {
				t.Errorf("%q: piece %d of %d: %s", c.says, i, ends+1, e)
			}
		}
		if streamed != c.text || events[ends+1] != "data: [DONE]" || slices.ContainsFunc(events, func(e string) bool { return strings.Contains(e, "<box>") }) {
			t.Errorf("%q: streamed %q: %q", c.says, streamed, events)
		}
	}
}
