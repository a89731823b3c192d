import com.pixelmed.validate.DicomSRValidator;

/** Runs PixelMed's DicomSRValidator over many files in one virtual machine: reading its rules costs more than using them. */
public class Validate {
    public static void main(String[] files) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        validator.setOptionCheckContentItemOrder(true);
        validator.setOptionCheckTemplateID(true);
        for (String file : files) {
            System.out.println("File: " + file);
            System.out.println(validator.validate(file));
        }
    }
}
