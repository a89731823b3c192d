package dicomweb_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"chatxray/pipeline/dicom"
)

// metadataOf stores a file in a service and gets its metadata; nil where it is not stored.
func (s *service) metadataOf(b []byte, accept string) []byte {
	in, err := dicom.Open(b)
	if err != nil {
		return nil
	}
	s.post("/studies", "application/dicom", bytes.NewReader(b))
	r := s.get(instancePath(in), "Accept", "application/dicom; transfer-syntax=*")
	if !bytes.Equal(r.body, b) { // another file of the pack has its UID
		return nil
	}
	return s.get(instancePath(in)+"/metadata", "Accept", accept).body
}

// modelDiffers says where outside software makes another model of a file than we do, by attribute, and why ours is right or as good.
// A file's name stands before a tag where it is about that file only.
var modelDiffers = map[string]map[string]string{
	"dcm2json": {},
	"pydicom":  {"fodicom_chrGB2312.dcm 00100010": "pydicom 2.3 leaves the escape sequences of GB 2312 in the text"},
}

const pydicomModels = `
import sys, json, warnings, pydicom
warnings.simplefilter("ignore")
for line in sys.stdin:
    try:
        d = pydicom.dcmread(line.strip()).to_json_dict(bulk_data_threshold=1<<40)
    except Exception as e:
        d = {"error": repr(e)[:200]}
    print(json.dumps(d))
`

// TestModelLikeOthers compares our JSON of every file of the data pack with that of DCMTK's dcm2json and of pydicom.
func TestModelLikeOthers(t *testing.T) {
	files := append(append(pack(t, "dicom/syntaxes/*.dcm"), pack(t, "dicom/edge/*.dcm")...), append(pack(t, "dicom/sr/*.dcm"), pack(t, "dicom/edge/charset/*")...)...)
	s := start(t)
	ours := map[string]map[string]any{}
	var names []string
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil || len(b) > 4<<20 {
			continue
		}
		var model []map[string]any
		if m := s.metadataOf(b, "application/dicom+json"); m == nil || json.Unmarshal(m, &model) != nil {
			continue
		}
		ours[name] = model[0]
		names = append(names, name)
	}
	t.Run("dcm2json", func(t *testing.T) {
		if _, err := exec.LookPath("dcm2json"); err != nil {
			t.Skip("dcm2json (DCMTK) is not installed")
		}
		compareModels(t, names, ours, modelDiffers["dcm2json"], func(name string) map[string]any {
			out, err := exec.Command("dcm2json", "-q", "-ee", name).Output()
			var model map[string]any
			if err != nil || json.Unmarshal(out, &model) != nil {
				return nil
			}
			return model
		})
	})
	t.Run("pydicom", func(t *testing.T) {
		const python = "/usr/bin/python3"
		if exec.Command(python, "-c", "import pydicom").Run() != nil {
			t.Skip("python3-pydicom absent: models are compared with DCMTK only")
		}
		cmd := exec.Command(python, "-c", pydicomModels)
		cmd.Stdin, cmd.Stderr = strings.NewReader(strings.Join(names, "\n")+"\n"), os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.Split(out, []byte("\n"))
		compareModels(t, names, ours, modelDiffers["pydicom"], func(name string) map[string]any {
			var model map[string]any
			if json.Unmarshal(lines[slices.Index(names, name)], &model) != nil || model["error"] != nil {
				return nil
			}
			return model
		})
	})
}

func compareModels(t *testing.T, names []string, ours map[string]map[string]any, known map[string]string, theirs func(string) map[string]any) {
	t.Helper()
	same, values, used := 0, 0, map[string]bool{}
	for _, name := range names {
		model := theirs(name)
		if model == nil {
			continue
		}
		same++
		for _, d := range modelDiff(ours[name], model, "", &values) {
			tag, _, _ := strings.Cut(d, " ")
			explained := false
			for _, key := range []string{tag, filepath.Base(name), filepath.Base(name) + " " + tag} {
				if known[key] != "" {
					explained, used[key] = true, true
				}
			}
			if !explained {
				t.Errorf("%s: %.300s", filepath.Base(name), d)
			}
		}
	}
	for key := range known {
		if !used[key] {
			t.Errorf("the table explains %s, and nothing differs there", key)
		}
	}
	if same < 50 || values < 4000 {
		t.Errorf("only %d files with %d values were compared", same, values)
	}
	t.Logf("%d files with %d values", same, values)
}

// modelDiff lists the attributes that differ, by their paths. Values that we leave behind a BulkDataURI are compared by their VR.
func modelDiff(ours, theirs map[string]any, at string, values *int) (out []string) {
	for _, tag := range sortedKeys(ours, theirs) {
		if strings.HasPrefix(tag, "0002") || strings.HasSuffix(tag, "0000") || tag == "FFFCFFFC" || tag == "00080005" {
			continue
		}
		*values++
		a, _ := ours[tag].(map[string]any)
		b, _ := theirs[tag].(map[string]any)
		switch {
		case a == nil || b == nil:
			out = append(out, fmt.Sprintf("%s%s only one has it: %v, %v", at, tag, a, b))
			continue
		case a["vr"] == "UN" && strings.Contains("13579BDF", tag[3:4]): // others have dictionaries of private attributes
			continue
		case a["vr"] != b["vr"]:
			out = append(out, fmt.Sprintf("%s%s VR %v, theirs is %v", at, tag, a["vr"], b["vr"]))
			continue
		case a["BulkDataURI"] != nil:
			continue
		}
		av, _ := a["Value"].([]any)
		bv, _ := b["Value"].([]any)
		if a["vr"] != "SQ" {
			if x, y := flatValues(av, a["vr"])+fmt.Sprint(a["InlineBinary"]), flatValues(bv, a["vr"])+fmt.Sprint(b["InlineBinary"]); x != y {
				out = append(out, fmt.Sprintf("%s%s %s, theirs is %s", at, tag, x, y))
			}
			continue
		}
		if len(av) != len(bv) {
			out = append(out, fmt.Sprintf("%s%s %d items, theirs are %d", at, tag, len(av), len(bv)))
			continue
		}
		for i := range av {
			x, _ := av[i].(map[string]any)
			y, _ := bv[i].(map[string]any)
			out = append(out, modelDiff(x, y, at+tag+"/", values)...)
		}
	}
	return out
}

func sortedKeys(maps ...map[string]any) (out []string) {
	for _, m := range maps {
		for k := range m {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// flatValues writes values so that equal ones are alike: empty ones and empty components of names at the end fall away, numbers are
// numbers, be they in quotes or not, with the digits that their VR can tell.
func flatValues(values []any, vr any) string {
	digits := map[any]string{"FL": "%.7g", "FD": "%.15g"}[vr]
	if digits == "" {
		digits = "%.17g"
	}
	var out []string
	for _, v := range values {
		text := fmt.Sprint(v)
		switch v := v.(type) {
		case nil:
			text = ""
		case float64:
			text = fmt.Sprintf(digits, v)
		case map[string]any:
			var groups []string
			for _, name := range []string{"Alphabetic", "Ideographic", "Phonetic"} {
				groups = append(groups, strings.TrimRight(fmt.Sprint(orNothing(v[name])), "^"))
			}
			text = strings.TrimRight(strings.Join(groups, "="), "=")
		case string:
			if f, err := strconv.ParseFloat(v, 64); err == nil {
				text = fmt.Sprintf(digits, f)
			}
		}
		out = append(out, strings.TrimRight(text, " "))
	}
	for len(out) > 0 && out[len(out)-1] == "" {
		out = out[:len(out)-1]
	}
	return strings.Join(out, "\\")
}

func orNothing(v any) any {
	if v == nil {
		return ""
	}
	return v
}

// nativeModel is the Native DICOM Model as encoding/xml reads it.
type nativeModel struct {
	Attributes []struct {
		Tag     string   `xml:"tag,attr"`
		VR      string   `xml:"vr,attr"`
		Keyword string   `xml:"keyword,attr"`
		Creator string   `xml:"privateCreator,attr"`
		Values  []string `xml:"Value"`
		Names   []struct {
			Family string `xml:"Alphabetic>FamilyName"`
			Given  string `xml:"Alphabetic>GivenName"`
		} `xml:"PersonName"`
		Items []nativeModel `xml:"Item"`
	} `xml:"DicomAttribute"`
}

func (m nativeModel) flat(at string, into map[string]string) {
	for _, a := range m.Attributes {
		tag := strings.ToUpper(a.Tag)
		if strings.HasPrefix(tag, "0002") || strings.HasSuffix(tag, "0000") || tag == "00080005" || tag == "FFFCFFFC" {
			continue
		}
		for i, v := range a.Values {
			if f, err := strconv.ParseFloat(v, 64); err == nil && (a.VR == "FL" || a.VR == "FD") {
				a.Values[i] = fmt.Sprintf(map[string]string{"FL": "%.7g", "FD": "%.15g"}[a.VR], f)
			}
		}
		if a.Creator != "" {
			tag += " of " + a.Creator
		}
		into[at+tag] = a.VR + " " + a.Keyword + " " + strings.TrimRight(strings.Join(a.Values, "\\"), "\\ ") + fmt.Sprint(a.Names)
		for i, item := range a.Items {
			item.flat(fmt.Sprintf("%s%s/%d/", at, tag, i+1), into)
		}
	}
}

// xmlDiffers says where dcm2xml makes another Native DICOM Model than we do, and why.
var xmlDiffers = map[string]string{
	"cs_CTImage_JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91.dcm": "writes the fragments of Pixel Data as OW; dcm2xml says OB, as it should be, we say what is there",
	"pydicom_693_J2KI.dcm": "the same",
	"00101000":             "Other Patient IDs is retired: DCMTK has no keyword for it",
}

// TestXMLLikeDCMTK compares our XML of the data pack's files in ASCII with that of dcm2xml.
func TestXMLLikeDCMTK(t *testing.T) {
	if _, err := exec.LookPath("dcm2xml"); err != nil {
		t.Skip("dcm2xml (DCMTK) is not installed")
	}
	files := append(pack(t, "dicom/syntaxes/*.dcm"), pack(t, "dicom/sr/*.dcm")...)
	s := start(t)
	compared, values, private := 0, 0, 0
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil || len(b) > 2<<20 {
			continue
		}
		m := s.metadataOf(b, "application/dicom+xml")
		theirs, err := exec.Command("dcm2xml", "-q", "-nat", name).Output()
		if m == nil || err != nil || !isASCII(theirs) || bytes.Contains(theirs, []byte("&#")) {
			continue
		}
		theirs = bytes.Replace(theirs, []byte(`encoding="ISO-8859-1"`), []byte(`encoding="UTF-8"`), 1) // all of it is ASCII
		var a, b2 nativeModel
		if err := xml.Unmarshal(m, &a); err != nil {
			t.Fatal(err)
		}
		if xml.Unmarshal(theirs, &b2) != nil {
			continue
		}
		compared++
		x, y := map[string]string{}, map[string]string{}
		a.flat("", x)
		b2.flat("", y)
		for at, v := range x {
			values++
			if strings.Contains(at, " of ") {
				private++
			}
			w, ok := y[at]
			if ok && strings.Contains(at, " of ") && strings.HasPrefix(v, "UN ") { // DCMTK knows some makers' attributes
				w = v
			}
			if (!ok || v != w) && xmlDiffers[at] == "" && xmlDiffers[filepath.Base(name)] == "" {
				t.Errorf("%s %s: %.120q, dcm2xml has %.120q", filepath.Base(name), at, v, w)
			}
		}
	}
	if compared < 30 || values < 2000 || private < 500 {
		t.Errorf("only %d files with %d attributes, %d of them private, were compared", compared, values, private)
	}
	t.Logf("%d files with %d attributes, %d of them private", compared, values, private)
}

func isASCII(b []byte) bool {
	return !bytes.ContainsFunc(b, func(r rune) bool { return r > '~' })
}
