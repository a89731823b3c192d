package dicom

// The JPEG-LS transfer syntaxes (PS3.5 annex A.4.3).
const (
	JPEGLSLossless     = "1.2.840.10008.1.2.4.80"
	JPEGLSNearLossless = "1.2.840.10008.1.2.4.81"
)

func init() {
	for _, s := range []struct{ uid, name string }{
		{JPEGLSLossless, "JPEG-LS Lossless Image Compression"},
		{JPEGLSNearLossless, "JPEG-LS Lossy (Near-Lossless) Image Compression"},
	} {
		register(syntax{Syntax: Syntax{UID: s.uid, Name: s.name}, decode: decodeJPEGLS})
	}
}
