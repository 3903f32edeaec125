// The same from C++ through the header-only wrapper.
#include <iostream>
#include <policygrad/policygrad.hpp>

int main()
{
    try {
        pgrad::context context;
        std::cout << "libpolicygrad " << pgrad_version_string() << ", " << context.info().kernel_set_name
                  << " kernels\n";
        pgrad::model model = pgrad::model::load(context, "/nonexistent/model");
        return 1;
    } catch (const pgrad::error &failure) {
        return failure.status() == PGRAD_E_IO ? 0 : 1;
    }
}
