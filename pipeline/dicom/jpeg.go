package dicom

// The JPEG transfer syntaxes that libjpeg-turbo decodes (PS3.5 annex A.4.1).
const (
	JPEGBaseline = "1.2.840.10008.1.2.4.50"
	JPEGExtended = "1.2.840.10008.1.2.4.51"
	JPEGLossless = "1.2.840.10008.1.2.4.70" // first-order prediction, the usual one
)

func init() {
	for _, s := range []struct{ uid, name string }{
		{JPEGBaseline, "JPEG Baseline (Process 1)"},
		{JPEGExtended, "JPEG Extended (Processes 2 and 4)"},
		{"1.2.840.10008.1.2.4.53", "JPEG Spectral Selection, Non-Hierarchical (Processes 6 and 8) (retired)"},
		{"1.2.840.10008.1.2.4.55", "JPEG Full Progression, Non-Hierarchical (Processes 10 and 12) (retired)"},
		{"1.2.840.10008.1.2.4.57", "JPEG Lossless, Non-Hierarchical (Process 14)"},
		{JPEGLossless, "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14, Selection Value 1)"},
	} {
		register(syntax{Syntax: Syntax{UID: s.uid, Name: s.name, NeedsCodecs: true}, decode: codecDecode("DecodeJpeg", jpegStream)})
	}
}
