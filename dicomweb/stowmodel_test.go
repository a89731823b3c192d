package dicomweb_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// bulk is a part of bulk data.
type bulk struct{ location, media, content string }

// modelBody makes a request of metadata and bulk data.
func modelBody(kind string, models []string, parts ...bulk) (contentType string, body *bytes.Buffer) {
	body = new(bytes.Buffer)
	w := multipart.NewWriter(body)
	for _, m := range models {
		p, _ := w.CreatePart(textproto.MIMEHeader{"Content-Type": {kind}})
		_, _ = p.Write([]byte(m))
	}
	for _, b := range parts {
		p, _ := w.CreatePart(textproto.MIMEHeader{"Content-Type": {b.media}, "Content-Location": {b.location}})
		_, _ = p.Write([]byte(b.content))
	}
	_ = w.Close()
	return `multipart/related; type="` + kind + `"; boundary=` + w.Boundary(), body
}

// TestModelsThereAndBack stores the metadata and bulk data that one service gives in another one, as JSON and as XML: what comes out
// must be the object that went in.
func TestModelsThereAndBack(t *testing.T) {
	codecs(t)
	files := append(pack(t, "dicom/syntaxes/*.dcm"), pack(t, "dicom/edge/*.dcm")...)
	files = append(files, pack(t, "dicom/sr/*.dcm")...)
	from := start(t)
	to := map[string]*service{"application/dicom+json": start(t), "application/dicom+xml": start(t)}
	same, refused := 0, map[string]string{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		in, err := dicom.Open(b)
		if err != nil || len(b) > 300<<10 {
			continue
		}
		if r := from.post("/studies", "application/dicom", bytes.NewReader(b)); r.StatusCode != http.StatusOK || bytes.Contains(r.body, []byte("00081196")) {
			continue
		}
		path := instancePath(in)
		for kind, target := range to {
			model := from.get(path+"/metadata", "Accept", kind)
			contentType, body := modelBody(kind, []string{string(model.body)}, from.bulks(path)...)
			r := target.post("/studies", contentType, body)
			if r.StatusCode != http.StatusOK {
				refused[filepath.Base(name)] = r.Header.Get("Warning")
				continue
			}
			back := target.get(path, "Accept", "application/dicom; transfer-syntax=*")
			got, err := dicom.Open(back.body)
			if err != nil {
				t.Errorf("%s %s: %v", filepath.Base(name), kind, err)
				continue
			}
			if before, after := comparable(in.Header), comparable(got.Header); !reflect.DeepEqual(before, after) {
				if diff := cmp.Diff(before, after); diff != "" {
					t.Errorf("%s %s:\n%s", filepath.Base(name), kind, diff)
				}
			}
			want, err1 := dicom.DecodeFrame(context.Background(), in, 0)
			have, err2 := dicom.DecodeFrame(context.Background(), got, 0)
			if (err1 == nil) != (err2 == nil) || err1 == nil && !bytes.Equal(want.Data, have.Data) {
				t.Errorf("%s %s: other pixels: %v, %v", filepath.Base(name), kind, err1, err2)
			}
			same++
		}
	}
	for name, why := range refused {
		if _, ok := notModelled[name]; !ok {
			t.Errorf("%s: %s", name, why)
		}
	}
	if same < 80 {
		t.Errorf("only %d came back", same)
	}
	t.Logf("%d came back, %d are refused", same, len(refused))
}

// notModelled are files whose metadata are not taken back, and why.
var notModelled = map[string]string{
	"suyash_2.dcm": "its (0018,1200) Date of Last Calibration is written as DS, which is not the standard's VR",
}

// bulks gets what the metadata of an instance name.
func (s *service) bulks(path string) (out []bulk) {
	s.t.Helper()
	var models []any
	if err := json.Unmarshal(s.get(path+"/metadata").body, &models); err != nil {
		s.t.Fatal(err)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			if uri, ok := v["BulkDataURI"].(string); ok {
				r := s.get(strings.TrimPrefix(uri, s.root), "Accept", `multipart/related; type="*/*"; transfer-syntax=*`)
				_, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
				mr := multipart.NewReader(bytes.NewReader(r.body), params["boundary"])
				for {
					p, err := mr.NextRawPart()
					if err != nil {
						return
					}
					var b bytes.Buffer
					_, _ = b.ReadFrom(p)
					out = append(out, bulk{uri, p.Header.Get("Content-Type"), b.String()})
				}
			}
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(models)
	return out
}

// comparable leaves out what a model cannot keep: the character set (text is UTF-8 now), and how a file wrote padding.
func comparable(d pipeline.Dataset) pipeline.Dataset {
	var out pipeline.Dataset
	for _, e := range d {
		if e.Tag == pipeline.TagSpecificCharacterSet {
			continue
		}
		if e.VR == "DS" || e.VR == "IS" {
			e.Text = slices.Clone(e.Text)
			for i, v := range e.Text { // a number of JSON has no plus, and no zeros in front
				var f float64
				if _, err := fmt.Sscanf(v, "%g", &f); err == nil {
					e.Text[i] = fmt.Sprint(f)
				}
			}
		}
		if e.VR == "PN" { // XML has no empty components at the end
			e.Text = slices.Clone(e.Text)
			for i := range e.Text {
				e.Text[i] = strings.TrimRight(e.Text[i], "^=")
			}
		}
		if e.VR == "SV" || e.VR == "UV" || e.VR == "OV" {
			e = pipeline.Element{Tag: e.Tag} // written as UN
		}
		if len(e.Bytes)%2 == 1 {
			e.Bytes = append(slices.Clone(e.Bytes), 0)
		}
		items := e.Items
		e.Items = nil
		for _, item := range items {
			e.Items = append(e.Items, comparable(item))
		}
		for len(e.Text) > 0 && len(e.Text) == 1 && e.Text[0] == "" {
			e.Text = nil
		}
		out = append(out, e)
	}
	return out
}

const plainModel = `{"00080016":{"vr":"UI","Value":["1.2.840.10008.5.1.4.1.1.7"]},"00080018":{"vr":"UI","Value":["1.2.8.1.%d"]},
"0020000D":{"vr":"UI","Value":["1.2.8"]},"0020000E":{"vr":"UI","Value":["1.2.8.1"]},"00080060":{"vr":"CS","Value":["OT"]},
"00100010":{"vr":"PN","Value":[{"Alphabetic":"Größe^Ada"}]}%s}`

const imageModel = `,"00280002":{"vr":"US","Value":[1]},"00280004":{"vr":"CS","Value":["MONOCHROME2"]},"00280010":{"vr":"US","Value":[2]},
"00280011":{"vr":"US","Value":[3]},"00280100":{"vr":"US","Value":[8]},"00280101":{"vr":"US","Value":[8]},"00280102":{"vr":"US","Value":[7]},
"00280103":{"vr":"US","Value":[0]},"7FE00010":{"vr":"OB","BulkDataURI":"bulk/1"}`

// TestStoreModels: what metadata may look like, and what is told when they are wrong. Each is answered for by itself.
func TestStoreModels(t *testing.T) {
	s := start(t)
	octets := bulk{"bulk/1", "application/octet-stream", "abcdef"}
	uid := 0
	model := func(more string) string { uid++; return fmt.Sprintf(plainModel, uid, more) }
	deep := strings.Repeat(`,"00081140":{"vr":"SQ","Value":[{"00081150":{"vr":"UI"}`, 10_000) + strings.Repeat(`}]}`, 10_000)
	for _, c := range []struct {
		name   string
		models []string
		parts  []bulk
		status int
		says   string
	}{
		{"without pixels", []string{"[" + model("") + "]"}, nil, 200, ""},
		{"an object in place of an array", []string{model("")}, nil, 200, ""},
		{"two at once", []string{"[" + model("") + "," + model("") + "]"}, nil, 200, ""},
		{"pixels", []string{"[" + model(imageModel) + "]"}, []bulk{octets}, 200, ""},
		{"pixels in line", []string{"[" + model(strings.Replace(imageModel, `"BulkDataURI":"bulk/1"`, `"InlineBinary":"`+base64.StdEncoding.EncodeToString([]byte("abcdef"))+`"`, 1)) + "]"}, nil, 200, ""},
		{"no bulk data", []string{"[" + model(imageModel) + "]"}, nil, 409, "has no part with its Content-Location"},
		{"other location", []string{"[" + model(imageModel) + "]"}, []bulk{{"bulk/2", octets.media, octets.content}}, 409, "has no part with its Content-Location"},
		{"too few bytes", []string{"[" + model(imageModel) + "]"}, []bulk{{"bulk/1", octets.media, "abcde"}}, 409, "5 bytes of pixels came"},
		{"two parts of native pixels", []string{"[" + model(imageModel) + "]"}, []bulk{octets, octets}, 409, "2 pieces"},
		{"too many frames", []string{"[" + model(imageModel) + "]"}, []bulk{{"bulk/1", "image/jls", "xx"}, {"bulk/1", "image/jls", "xx"}}, 409, "2 compressed frames came"},
		{"unknown syntax", []string{"[" + model(imageModel) + "]"}, []bulk{{"bulk/1", "image/jls; transfer-syntax=1.2.3", "xx"}}, 409, "transfer syntax 1.2.3"},
		{"one good, one bad", []string{"[" + model("") + "," + model(imageModel) + "]"}, nil, 202, "has no part"},
		{"wrong VR", []string{"[" + model(`,"00280010":{"vr":"LO","Value":["2"]}`) + "]"}, nil, 409, "(0028,0010)"},
		{"no VR", []string{"[" + model(`,"00280010":{"Value":[2]}`) + "]"}, nil, 409, "(0028,0010)"},
		{"no such VR", []string{"[" + model(`,"00091010":{"vr":"ZZ","Value":[2]}`) + "]"}, nil, 409, "(0009,1010)"},
		{"number out of range", []string{"[" + model(`,"00280010":{"vr":"US","Value":[70000]}`) + "]"}, nil, 409, "range of US"},
		{"a text for a number", []string{"[" + model(`,"00280010":{"vr":"US","Value":["x"]}`) + "]"}, nil, 409, "range of US"},
		{"no base64", []string{"[" + model(`,"00091010":{"vr":"OB","InlineBinary":"%%%"}`) + "]"}, nil, 409, "base64"},
		{"no UID", []string{strings.Replace("["+model("")+"]", `["1.2.8"]`, `["../x"]`, 1)}, nil, 409, "no UID"},
		{"no identity", []string{`[{"00080060":{"vr":"CS","Value":["OT"]}}]`}, nil, 409, "SOP Class UID"},
		{"no tag", []string{`[{"PatientName":{"vr":"PN"}}]`}, nil, 400, "no tag"},
		{"10,000 deep", []string{"[" + model(deep) + "]"}, nil, 400, "nested more than"},
		{"10,000 arrays", []string{strings.Repeat("[", 10_001)}, nil, 400, "array of JSON objects"},
		{"no JSON", []string{"[{"}, nil, 400, "metadata make no data set"},
		{"nothing", []string{"[]"}, nil, 400, "no instance"},
		{"a scalar", []string{"7"}, nil, 400, "array of JSON objects"},
	} {
		t.Run(c.name, func(t *testing.T) {
			contentType, body := modelBody("application/dicom+json", c.models, c.parts...)
			r := s.post("/studies", contentType, body)
			said := string(r.body) + r.Header.Get("Warning")
			if r.StatusCode != c.status || !strings.Contains(said, c.says) {
				t.Errorf("%d %s", r.StatusCode, said)
			}
		})
	}
	// What is wrong with an instance is named: two attributes of the first, bulk data of the second that did not come.
	contentType, body := modelBody("application/dicom+json", []string{"[" + model(`,"00280010":{"vr":"US","Value":[70000]},"00280011":{"vr":"US","Value":["x"]}`) + "," + model(imageModel) + "]"})
	var named []string
	for _, failed := range s.post("/studies", contentType, body).model(t).items(t, "00081198") {
		for _, item := range failed.items(t, "00741048") {
			named = append(named, item.first("00720026")+" "+item.first("00720050"))
		}
	}
	if diff := cmp.Diff([]string{"00280010 US", "00280011 US", "7FE00010 "}, named); diff != "" {
		t.Error("failed attributes:", diff)
	}
	const instance = "/studies/1.2.8/series/1.2.8.1/instances/1.2.8.1.5"
	if r := s.get(instance+"/frames/1", "Accept", "application/octet-stream"); string(r.body) != "abcdef" {
		t.Errorf("the pixels are %d %q", r.StatusCode, r.body)
	}
	if r := s.get(instance + "/metadata"); !bytes.Contains(r.body, []byte("Größe^Ada")) {
		t.Errorf("the name is another: %s", r.body)
	}
	uid++
	if r := s.post("/studies", "application/dicom+json", strings.NewReader("["+model("")+"]")); r.StatusCode != http.StatusOK {
		t.Errorf("a body of metadata alone: %d %s", r.StatusCode, r.body)
	}

	xmlModel := func(more string) string {
		uid++
		return fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel xml:space="preserve"><DicomAttribute tag="00080016" vr="UI"><Value number="1">1.2.840.10008.5.1.4.1.1.7</Value></DicomAttribute>
<DicomAttribute tag="00080018" vr="UI" keyword="SOPInstanceUID"><Value number="1">1.2.8.1.%d</Value></DicomAttribute><DicomAttribute tag="0020000D" vr="UI"><Value number="1">1.2.8</Value></DicomAttribute>
<DicomAttribute tag="0020000E" vr="UI"><Value number="1">1.2.8.1</Value></DicomAttribute>%s</NativeDicomModel>`, uid, more)
	}
	for _, c := range []struct {
		name, model string
		status      int
		says        string
	}{
		{"plain", xmlModel(""), 200, ""},
		{"a hole between values", xmlModel(`<DicomAttribute tag="00080008" vr="CS"><Value number="1">A</Value><Value number="3">B</Value></DicomAttribute>`), 200, ""},
		{"entity", `<!DOCTYPE x [<!ENTITY a "` + strings.Repeat("x", 100) + `">]>` + xmlModel(`<DicomAttribute tag="00081030" vr="LO"><Value number="1">&a;&a;</Value></DicomAttribute>`), 400, "metadata make no data set"},
		{"unknown entity", xmlModel(`<DicomAttribute tag="00081030" vr="LO"><Value number="1">&a;</Value></DicomAttribute>`), 400, "entities"},
		{"deep", xmlModel(strings.Repeat(`<DicomAttribute tag="00081140" vr="SQ"><Item number="1">`, 10_000)), 400, "nested more than"},
		{"other root", `<x/>`, 400, "NativeDicomModel"},
		{"other encoding", `<?xml version="1.0" encoding="UTF-7"?><NativeDicomModel/>`, 400, "NativeDicomModel"},
		{"cut", xmlModel("")[:300], 400, "broken"},
		{"huge number", xmlModel(`<DicomAttribute tag="00080008" vr="CS"><Value number="2000000000">A</Value></DicomAttribute>`), 200, ""},
	} {
		t.Run("XML "+c.name, func(t *testing.T) {
			contentType, body := modelBody("application/dicom+xml", []string{c.model})
			r := s.post("/studies", contentType, body)
			if said := string(r.body) + r.Header.Get("Warning"); r.StatusCode != c.status || !strings.Contains(said, c.says) {
				t.Errorf("%d %s", r.StatusCode, said)
			}
		})
	}
}

// TestPrivateCreators: XML names private attributes by their creator, without the block that they have in the file (PS3.19 table A.1.5-2).
func TestPrivateCreators(t *testing.T) {
	attribute := func(tag, vr, creator, value string) string {
		if creator != "" {
			creator = ` privateCreator="` + creator + `"`
		}
		return `<DicomAttribute tag="` + tag + `" vr="` + vr + `"` + creator + `>` + value + `</DicomAttribute>`
	}
	value := func(s string) string { return `<Value number="1">` + s + `</Value>` }
	object := func(private string) string {
		return `<NativeDicomModel>` + attribute("00080016", "UI", "", value("1.2.840.10008.5.1.4.1.1.7")) + attribute("00080018", "UI", "", value("1.2.3")) +
			attribute("0020000D", "UI", "", value("1.2.1")) + attribute("0020000E", "UI", "", value("1.2.2")) + private + `</NativeDicomModel>`
	}
	nested := `<Item number="1">` + attribute("00090001", "LO", "IN THE ITEM", value("inside")) + `</Item>`
	full := ""
	for b := 0x10; b <= 0xFF; b++ {
		full += attribute(fmt.Sprintf("000900%02X", b), "LO", "", value(fmt.Sprint("maker ", b)))
	}
	for _, c := range []struct {
		name, private string
		want          map[pipeline.Tag]string
		says          string
	}{
		{"with its element", attribute("00090010", "LO", "", value("MAKER")) + attribute("00090001", "LO", "MAKER", value("a")),
			map[pipeline.Tag]string{0x00090010: "MAKER", 0x00091001: "a"}, ""},
		{"in another block", attribute("00090020", "LO", "", value("MAKER")) + attribute("00090001", "LO", "MAKER", value("a")),
			map[pipeline.Tag]string{0x00090020: "MAKER", 0x00092001: "a"}, ""},
		{"without its element", attribute("00090001", "LO", "MAKER", value("a")), map[pipeline.Tag]string{0x00090010: "MAKER", 0x00091001: "a"}, ""},
		{"two with one tag", attribute("00090001", "LO", "ONE &amp; CO", value("a")) + attribute("00090001", "LO", "TWO", value("b")),
			map[pipeline.Tag]string{0x00090010: "ONE & CO", 0x00091001: "a", 0x00090011: "TWO", 0x00091101: "b"}, ""},
		{"beside one as in a file", attribute("00090010", "LO", "", value("OLD")) + attribute("00091001", "LO", "", value("a")) + attribute("00090001", "LO", "NEW", value("b")),
			map[pipeline.Tag]string{0x00090010: "OLD", 0x00091001: "a", 0x00090011: "NEW", 0x00091101: "b"}, ""},
		{"with the block of a file", attribute("00091501", "LO", "MAKER", value("a")), map[pipeline.Tag]string{0x00090010: "MAKER", 0x00091001: "a"}, ""},
		{"of a standard attribute", attribute("00100020", "LO", "MAKER", value("a")), map[pipeline.Tag]string{0x00100020: "a"}, ""},
		{"twice", attribute("00090001", "LO", "MAKER", value("a")) + attribute("00090001", "LO", "MAKER", value("a")), nil, "it is there twice"},
		{"no block left", full + attribute("00090001", "LO", "MAKER", value("a")), nil, "no free block"},
		{"in an item", attribute("00090003", "SQ", "MAKER", nested), map[pipeline.Tag]string{0x00090010: "MAKER"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t)
			r := s.post("/studies", "application/dicom+xml", strings.NewReader(object(c.private)))
			if c.says != "" {
				if said := r.Header.Get("Warning") + string(r.body); r.StatusCode/100 != 4 || !strings.Contains(said, c.says) {
					t.Errorf("%d %s", r.StatusCode, said)
				}
				return
			}
			path := "/studies/1.2.1/series/1.2.2/instances/1.2.3"
			got, err := dicom.Open(s.get(path, "Accept", "application/dicom; transfer-syntax=*").body)
			if err != nil {
				t.Fatal(r.StatusCode, string(r.body), err)
			}
			have := map[pipeline.Tag]string{}
			for _, e := range got.Header {
				if _, ok := c.want[e.Tag]; ok || e.Tag.Group()%2 == 1 && e.VR != "SQ" {
					have[e.Tag] = strings.Join(e.Text, "\\")
				}
			}
			if diff := cmp.Diff(c.want, have); diff != "" {
				t.Error(diff)
			}
			if c.name == "in an item" {
				if items := got.Header.Items(0x00091003); len(items) != 1 || items[0].String(0x00090010) != "IN THE ITEM" || items[0].String(0x00091001) != "inside" {
					t.Error(items)
				}
			}
			if c.name == "two with one tag" {
				xml := string(s.get(path+"/metadata", "Accept", "application/dicom+xml").body)
				for _, want := range []string{`tag="00090001" vr="LO" privateCreator="ONE &amp; CO"`, `tag="00090001" vr="LO" privateCreator="TWO"`,
					`tag="0020000D" vr="UI" keyword="StudyInstanceUID"`} {
					if !strings.Contains(xml, want) {
						t.Errorf("no %s in %s", want, xml)
					}
				}
			}
		})
	}
}
