package dicom

// The JPEG-LS transfer syntaxes (PS3.5 annex A.4.3). They are decoded without the codec module and encoded with it.
const (
	JPEGLSLossless     = "1.2.840.10008.1.2.4.80"
	JPEGLSNearLossless = "1.2.840.10008.1.2.4.81"
)

func init() {
	register(syntax{
		Syntax: Syntax{UID: JPEGLSLossless, Name: "JPEG-LS Lossless Image Compression"},
		decode: decodeJPEGLS, encode: codecEncode("EncodeJpegLs", nil),
	})
	register(syntax{
		Syntax: Syntax{UID: JPEGLSNearLossless, Name: "JPEG-LS Lossy (Near-Lossless) Image Compression"},
		decode: decodeJPEGLS,
	})
}
